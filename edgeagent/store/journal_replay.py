"""Applies journal entries that an older copy of the database lacks: revocations, holds, erasures,
deletions.

Runs while no other process has the store open, before anything is served. Each entry takes one or more
short transactions that may run twice, and the last one marks it, so an interrupted replay is completed at
the next start, as is an interrupted erasure. Entries name people by pseudonyms, which are compared with
the names in this database.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import msgspec

from edgeagent.errors import EdgeAgentError
from edgeagent.store import (
    audit,
    client_deletion,
    journal_progress,
    ownership,
    row_deletion,
    warm_prefixes,
)
from edgeagent.store.connection import SqliteError, StoreConnection
from edgeagent.store.journal import Journal, JournalContents, JournalEntry
from edgeagent.store.ownership import HELD, TABLES, Selector
from edgeagent.store.sql import Connection, marks

_OWNERLESS = ("segment", "batch_line", "chunk", "document_part")
_FOUND_IN = {
    "owner": [(table, "owner") for table in TABLES if table not in _OWNERLESS],
    "subject": [
        (table, "subject")
        for table in (
            "conversation",
            "response",
            "transcript",
            "batch_line",
            "batch",
            "vector_store",
        )
    ],
    "conversation": [("conversation", "id"), ("batch_line", "conversation")],
}


@dataclass
class ReplayReport:
    """What was applied again: ended keys, erasures and their rows, deleted single rows."""

    n_keys: int = 0
    n_erasures: int = 0
    n_rows: int = 0
    n_deleted: int = 0

    def told(self) -> str:
        return (
            "The database was older than its journal. Applied again before anything was served: "
            f"{self.n_keys} keys ended, {self.n_erasures} erasures "
            f"({self.n_rows} rows), {self.n_deleted} deletions of single rows."
        )

    def __bool__(self) -> bool:
        return bool(self.n_keys or self.n_erasures or self.n_deleted)


def selector_entry(journal: Journal, selector: Selector, **flags: bool) -> str:
    """The content of a journal entry for a selector: pseudonyms."""
    tags = {field: journal.pseudonym(field, name) for field, name in selector.values().items()}
    return msgspec.json.encode(tags | flags, order="deterministic").decode()


@contextlib.contextmanager
def recorded(journal: Journal, selector: Selector) -> Iterator[Callable[[Connection], None]]:
    """Add an erasure to the journal before it begins; the block calls the yielded function in the
    transaction that completes the erasure. If the block raises, the entry is withdrawn, since there may be
    new data of the same name at the next start.

    Raises: StoreLocked if there is no sound journal; StorageFull, StorageFailed.
    """
    what = selector_entry(journal, selector)
    contents = journal.append("erase", what)

    def mark_done(conn: Connection) -> None:
        same = [e.n for e in contents.entries if e.kind == "erase" and e.what == what]
        journal_progress.mark_applied(conn, contents, *same)

    try:
        yield mark_done
    except Exception:
        with contextlib.suppress(EdgeAgentError):
            journal.append("abandon", str(contents.head.n))
        raise


def replay(
    db: StoreConnection, journal: Journal, contents: JournalContents, audit_key: bytes
) -> ReplayReport:
    """Apply the entries that this database lacks. Raises: SqliteError."""
    known = journal_progress.read(db)
    done = ReplayReport()
    behind = known.place.n if known is not None else 0
    others = set(known.done) if known is not None else set()
    left = [entry for entry in contents.entries if entry.n > behind and entry.n not in others]
    if any(entry.kind in ("erase", "delete") for entry in left):
        with db.atomic():  # which of them it was that the text was about, no entry says
            warm_prefixes.forget_owner(db, None)
            row_deletion.mark(db)
    meant = client_deletion.present(
        db, journal, (entry for entry in left if entry.kind == "delete")
    )
    for is_deletion, group in itertools.groupby(left, key=lambda entry: entry.kind == "delete"):
        if is_deletion:
            _delete_again(db, contents, list(group), meant, audit_key, done)
            continue
        for entry in group:
            _carry_out(db, journal, contents, entry, audit_key, done)
    if done.n_rows or done.n_deleted:
        with contextlib.suppress(SqliteError):  # the retention sweep cleans up anyway
            db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    return done


def revoke_again(db: StoreConnection, ids: list[str], utc_ms: int) -> int:
    """End the live keys among `ids`. Returns how many."""
    found = db.execute(
        f"update key set revoked_ms = ? where revoked_ms is null and id in ({marks(len(ids))})",
        (utc_ms, *ids),
    )
    return int(found.rowcount)


def _expire_again(db: StoreConnection, what: str) -> int:
    key_id, _, ends_ms = what.partition(" ")
    found = db.execute(
        "update key set expires_ms = ? where id = ? and (expires_ms is null or expires_ms > ?)",
        (int(ends_ms), key_id, int(ends_ms)),
    )
    return int(found.rowcount)


def _delete_again(
    db: StoreConnection, contents: JournalContents, entries: list[JournalEntry],
    meant: dict[int, tuple[str, str]], audit_key: bytes, done: ReplayReport,
) -> None:  # fmt: skip
    for start in range(0, len(entries), client_deletion.BATCH):
        batch = entries[start : start + client_deletion.BATCH]
        with db.atomic():
            n_rows = client_deletion.delete_again(db, contents, batch, meant)
            if n_rows:
                what = f"journal:{batch[0].n}-{batch[-1].n} rows:{n_rows}"
                audit.append(db, audit_key, actor="system", action="replay.delete", object=what)
        done.n_deleted += n_rows


def _carry_out(
    db: StoreConnection,
    journal: Journal,
    contents: JournalContents,
    entry: JournalEntry,
    audit_key: bytes,
    done: ReplayReport,
) -> None:
    def told(what: str) -> None:
        audit.append(db, audit_key, actor="system", action=f"replay.{entry.kind}", object=what)

    selector = None
    if entry.kind in ("hold", "release", "erase") and entry.n not in contents.abandoned:
        selector = _selector(db, journal, entry.what)
    if entry.kind == "erase" and selector is not None:
        n_rows = _erase(db, selector)
        done.n_rows += n_rows
        done.n_erasures += 1
    with db.atomic():
        if entry.kind == "revoke" and (n_keys := revoke_again(db, [entry.what], entry.utc_ms)):
            done.n_keys += n_keys
            told(f"key:{entry.what}")
        elif entry.kind == "expire" and (n_keys := _expire_again(db, entry.what)):
            done.n_keys += n_keys
            told(f"key:{entry.what.partition(' ')[0]}")
        elif entry.kind == "erase" and selector is not None:
            told(f"journal:{entry.n} rows:{n_rows}")
        elif entry.kind in ("hold", "release") and selector is not None:
            ownership.set_hold(db, selector, entry.kind == "hold")
            told(f"journal:{entry.n}")
        journal_progress.mark_applied(db, contents, entry.n)


def _selector(db: StoreConnection, journal: Journal, what: str) -> Selector | None:
    """The selector with names of this database; None if nobody here matches."""
    names: dict[str, str] = {}
    for field, tag in msgspec.json.decode(what, type=dict[str, str | bool]).items():
        if field not in _FOUND_IN:
            continue
        name = _named(db, journal, field, str(tag))
        if name is None:
            return None
        names[field] = name
    return Selector(**names)


def _named(db: StoreConnection, journal: Journal, field: str, tag: str) -> str | None:
    """The name in this database that has the pseudonym."""
    sql = " union ".join(f"select {column} from {table}" for table, column in _FOUND_IN[field])
    names = (row[0] for row in db.execute(sql).fetchall() if row[0] is not None)
    return next((name for name in names if journal.pseudonym(field, name) == tag), None)


def _erase(db: StoreConnection, selector: Selector) -> int:
    """Delete the selected rows that are not under legal hold, a few at a time. Returns how many."""
    n_rows = 0
    for table in TABLES:
        row_key = row_deletion.key_of(table)
        sql = (
            f"select {row_key} from {table} where ({selector.where(table)}) and not {HELD[table]} "
            f"limit {row_deletion.BATCH}"
        )
        while ids := [row[0] for row in db.execute(sql, selector.values()).fetchall()]:
            with db.atomic():
                row_deletion.delete(db, table, ids)
                row_deletion.mark(db)
            n_rows += len(ids)
    return n_rows
