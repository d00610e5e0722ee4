"""The audit log: who did what to which object. Rows can be added, but not changed unnoticed.

Each row's mac covers the row and the previous mac, keyed with a subkey of the store's key:

    mac[n] = HMAC-SHA256(key, seq, utc_ms, boot_id, actor, action, object, digest, mac[n-1])

An edited, swapped or missing row breaks the chain after it. Two sealed records in `checkpoint` protect its
ends: `audit_base`, where retention has cut off the old end, and `audit_head`, the newest row. Whoever can
restore an older copy of the whole file defeats both; for that case `store/audit_anchor.py` keeps the head
outside the database. Rows name objects and never hold their content.

Source: forward integrity, Bellare and Yee 1997, but without evolving keys: the daemon must be able to
verify, so whoever has the key can forge.
"""

from __future__ import annotations

import hmac
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

import msgspec

from edgeagent.store.sql import Connection, boot_id, now_ms, scalar
from edgeagent.store.store_key import Secret

GENESIS = bytes(32)
MOST_PROBLEMS = 20
_COLUMNS = "seq, utc_ms, boot_id, actor, action, object, digest, mac"
# A plain-text store has no key: its chain then detects accidents, but not manipulation.
NO_KEY = sha256(b"edgeagent: a store without a key").digest()


@dataclass(frozen=True)
class AuditHead:
    """A position in the chain, as exported in an anchor."""

    seq: int
    mac: bytes


START = AuditHead(0, GENESIS)


@dataclass(frozen=True)
class AuditRow:
    seq: int
    utc_ms: int
    boot_id: str
    actor: str
    action: str
    object: str
    digest: str | None
    mac: bytes

    def shown(self) -> dict[str, Any]:
        """The row as a JSON object."""
        return self.__dict__ | {"mac": self.mac.hex()}


@dataclass(frozen=True)
class AuditProblem:
    """`kind`: edited | missing | cut | base | head. `seq`: the row where the problem shows."""

    seq: int
    kind: str
    message: str


@dataclass
class AuditVerification:
    n_rows: int = 0
    first_seq: int | None = None
    head: AuditHead = START
    problems: list[AuditProblem] = field(default_factory=list)

    @property
    def is_sound(self) -> bool:
        return not self.problems

    def found(self, seq: int, kind: str, message: str) -> None:
        if len(self.problems) < MOST_PROBLEMS:
            self.problems.append(AuditProblem(seq, kind, message))


def append(
    conn: Connection, key: bytes, *, actor: str, action: str, object: str, digest: str | None = None,
    utc_ms: int | None = None, boot: str | None = None,
) -> AuditHead:  # fmt: skip
    """Add a row in the caller's transaction, the one that makes the audited change.

    `actor`: a key id, "local", "cli:USER" or "system". `object`: for example "conversation:conv_...";
    name people with `pseudonym`. `digest`: SHA-256 of the object, in hexadecimal digits.
    """
    last, sealed = _last(conn), _sealed(conn, key, "audit_head")
    # If rows are missing at the end, continue from the sealed head: the gap stays visible to `verify`.
    before = sealed if sealed is not None and sealed.seq > last.seq else last
    row = AuditRow(
        before.seq + 1, now_ms() if utc_ms is None else utc_ms, boot or boot_id(), actor, action,
        object, digest, b"",
    )  # fmt: skip
    mac = _mac(key, row, before.mac)
    conn.execute(
        f"insert into audit ({_COLUMNS}) values (?, ?, ?, ?, ?, ?, ?, ?)",
        (row.seq, row.utc_ms, row.boot_id, actor, action, object, digest, mac),
    )
    head = AuditHead(row.seq, mac)
    if sealed is not None or last.seq == 0:  # a removed head stays missing, as evidence
        _seal(conn, key, "audit_head", head)
    return head


def key_of(secret: Secret | None) -> bytes:
    """The key of the chain, derived from the store's secret."""
    return NO_KEY if secret is None else secret.subkey("audit")


def head(conn: Connection, key: bytes) -> AuditHead:
    """The newest position of the chain, for an anchor."""
    return _sealed(conn, key, "audit_head") or _last(conn)


def page(conn: Connection, after_seq: int, limit: int) -> list[AuditRow]:
    """At most `limit` rows after `after_seq`, oldest first."""
    sql = f"select {_COLUMNS} from audit where seq > ? order by seq limit ?"
    return [AuditRow(*row) for row in conn.execute(sql, (after_seq, limit)).fetchall()]


def rows(conn: Connection, after_seq: int = 0) -> Iterator[AuditRow]:
    """All rows after `after_seq`, read in pages."""
    while found := page(conn, after_seq, 1000):
        yield from found
        after_seq = found[-1].seq


def verify(conn: Connection, key: bytes, anchors: Iterable[AuditHead] = ()) -> AuditVerification:
    """Check the whole chain. `anchors`: heads that were kept outside the database.

    Finds rows that were edited, deleted or reordered, and a tail that was cut off before an anchor or
    before the sealed head. Reads every row once.
    """
    result = AuditVerification()
    wanted: dict[int, set[bytes]] = {}
    for anchor in anchors:
        wanted.setdefault(anchor.seq, set()).add(anchor.mac)
    before = base = _checked_base(conn, key, result)
    for row in rows(conn):
        _check_row(key, row, before, result)
        _check_anchor(row.seq, row.mac, wanted, result)
        before = AuditHead(row.seq, row.mac)
        result.n_rows += 1
        if result.first_seq is None:
            result.first_seq = row.seq
    result.head = before
    _check_anchor(base.seq, base.mac, wanted, result)
    _check_end(conn, key, base, wanted, result)
    return result


def purge(
    conn: Connection, key: bytes, before_ms: int, limit: int, *, actor: str = "system"
) -> int:
    """Delete at most `limit` rows from the old end, all older than `before_ms`. Returns their number.

    The new start is sealed and the cut is itself a row, so `verify` accepts only this cut.
    """
    first_kept = scalar(conn, "select min(seq) from audit where utc_ms >= ?", (before_ms,))
    sql = "select seq, mac from audit where (? is null or seq < ?) order by seq limit ?"
    gone = conn.execute(sql, (first_kept, first_kept, limit)).fetchall()
    # Keep the newest row: an empty table could not show that rows are missing.
    gone = [row for row in gone if row[0] < _last(conn).seq]
    if not gone:
        return 0
    _seal(conn, key, "audit_base", AuditHead(*gone[-1]))
    conn.execute("delete from audit where seq <= ?", (gone[-1][0],))
    cut = f"audit:{gone[0][0]}-{gone[-1][0]}"
    append(conn, key, actor=actor, action="audit.purge", object=cut)
    return len(gone)


def pseudonym(key: bytes, kind: str, name: str) -> str:
    """A name for a person that audit rows may keep after the person's data is erased. It is always the same
    for the same name and cannot be reversed without the key."""
    tag = hmac.digest(key, msgspec.msgpack.encode(["name", kind, name]), "sha256")
    return f"{kind}:{tag[:12].hex()}"


def _check_row(key: bytes, row: AuditRow, before: AuditHead, result: AuditVerification) -> None:
    if row.seq != before.seq + 1:
        gap = f"{before.seq + 1}" + (f"-{row.seq - 1}" if row.seq > before.seq + 2 else "")
        result.found(row.seq, "missing", f"Rows {gap} are missing before row {row.seq}.")
    elif not hmac.compare_digest(row.mac, _mac(key, row, before.mac)):
        result.found(
            row.seq,
            "edited",
            f"Row {row.seq} is not the row that was written: it or the row before it was changed or moved.",
        )


def _check_anchor(
    seq: int, mac: bytes, wanted: dict[int, set[bytes]], result: AuditVerification
) -> None:
    if wanted.pop(seq, {mac}) != {mac}:
        result.found(seq, "edited", f"Row {seq} differs from its anchor: the chain was rewritten.")


def _checked_base(conn: Connection, key: bytes, result: AuditVerification) -> AuditHead:
    """Where the chain begins: at the start, or after the rows that retention has cut off."""
    if scalar(conn, "select 1 from checkpoint where name = 'audit_base'") is None:
        return START
    base = _sealed(conn, key, "audit_base")
    if base is None:
        result.found(0, "base", "The record of where retention cut the chain is forged or damaged.")
    return base or START


def _check_end(
    conn: Connection,
    key: bytes,
    base: AuditHead,
    wanted: dict[int, set[bytes]],
    result: AuditVerification,
) -> None:
    last = result.head
    sealed = _sealed(conn, key, "audit_head")
    if sealed is None and (result.n_rows or base.seq):
        result.found(last.seq, "head", "The record of the newest row is missing or forged.")
    elif sealed is not None and sealed != last:
        result.found(
            last.seq,
            "cut",
            f"The newest row is {last.seq}, the sealed head says {sealed.seq}: the tail was cut off.",
        )
    beyond = [seq for seq in wanted if seq > last.seq]
    if beyond:
        result.found(
            last.seq,
            "cut",
            f"The newest row is {last.seq}, an anchor says {max(beyond)}: the tail was cut off, or an "
            "older copy of the database was restored.",
        )


def _mac(key: bytes, row: AuditRow, before: bytes) -> bytes:
    # msgpack encodes every length, so two different rows never have the same bytes.
    fields = (row.seq, row.utc_ms, row.boot_id, row.actor, row.action, row.object, row.digest)
    return hmac.digest(key, msgspec.msgpack.encode(["row", *fields, before]), "sha256")


def _last(conn: Connection) -> AuditHead:
    found = conn.execute("select seq, mac from audit order by seq desc limit 1").fetchone()
    return AuditHead(*found) if found else START


def _tag(key: bytes, name: str, head: AuditHead) -> str:
    return hmac.digest(key, msgspec.msgpack.encode([name, head.seq, head.mac]), "sha256").hex()


def _seal(conn: Connection, key: bytes, name: str, head: AuditHead) -> None:
    body = {"seq": head.seq, "mac": head.mac.hex(), "tag": _tag(key, name, head)}
    conn.execute("insert or replace into checkpoint values (?, ?)", (name, json.dumps(body)))


def _sealed(conn: Connection, key: bytes, name: str) -> AuditHead | None:
    """A sealed record; None if it is missing or was not sealed with this key."""
    body = scalar(conn, "select body from checkpoint where name = ?", (name,))
    try:
        found = json.loads(body or "")
        head, tag = AuditHead(int(found["seq"]), bytes.fromhex(found["mac"])), str(found["tag"])
    except (ValueError, KeyError, TypeError):
        return None
    return head if hmac.compare_digest(tag.encode(), _tag(key, name, head).encode()) else None
