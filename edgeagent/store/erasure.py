"""Erases all data of an owner, a conversation or a subject, and proves that it is gone.

    1. refuse while some of it is under legal hold; otherwise number the erasure
       (store/erasure_epochs.py), so that answers in progress are not stored afterwards, and audit the start
    2. delete in short transactions: search entries, content, rows; first take probes of the texts
    3. audit the end, with the digest of what was erased
    4. clean up: merge the search indexes, truncate the log; clear caches outside the database
    5. replace the old backups by a new one, if requested
    6. search every byte of the state directory for the probes; if a database page still has one,
       VACUUM and search again

Before step 2 it is added to the journal, with which an interrupted erasure is completed at the next start
and a restored backup is erased again (store/journal_replay.py); `row_deletion.mark` makes the next sweep
clean up. Freed flash cells are outside our control: their content is encrypted.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any

from edgeagent.errors import LegalHold, NotFound
from edgeagent.store import (
    audit,
    erasure_epochs,
    ownership,
    residue_scan,
    row_deletion,
    warm_prefixes,
)
from edgeagent.store.backup import Backup
from edgeagent.store.connection import StoreConnection
from edgeagent.store.database import Database
from edgeagent.store.erasure_request import ErasureRequest, ErasureScope
from edgeagent.store.journal_replay import recorded
from edgeagent.store.ownership import HELD, TABLES, Selector
from edgeagent.store.residue_scan import Probes, ScanResult
from edgeagent.store.row_deletion import BATCH, key_of
from edgeagent.store.sql import Connection, now_ms

logger = logging.getLogger(__name__)

CLEAN_TIMEOUT_S = 60.0
_TEXTS = {
    "item": "select body, plain from item_content where item_rowid = ?",
    "segment": "select body, plain from segment_content where segment_rowid = ?",
    "feedback": "select body, correction from feedback_content where feedback_rowid = ?",
    # Without ids and model names, which are not content and may appear in logs.
    "response": "select json_remove(body, '$.id', '$.model', '$.object') from response_content "
    "where response_id = ?",
    "conversation": "select metadata from conversation where id = ?",
    "batch_line": "select body from batch_line where rowid = ?",
    "batch_file": "select name from batch_file where id = ?",
    "batch": "select metadata, errors from batch where id = ?",
    "audio_job": "select name, metadata, options from audio_job where id = ?",
    "chunk": "select headings, body, answer from chunk where rowid = ?",
    "document": "select name from document where id = ?",
    "vector_store": "select name, description, metadata from vector_store where id = ?",
    "vector_store_file": "select attributes from vector_store_file where id = ?",
}


@dataclass
class ErasureReceipt:
    """What was erased, and what remains of it."""

    what: dict[str, str]
    actor: str
    began_ms: int
    done_ms: int = 0
    erased: Counter[str] = field(default_factory=Counter)
    held_back: dict[str, int] = field(default_factory=dict)
    digest: str = ""
    audit_seq: int = 0
    audit_mac: str = ""
    forgotten: list[str] = field(default_factory=list)
    is_log_empty: bool = False
    is_vacuumed: bool = False
    backups_removed: list[str] = field(default_factory=list)
    backups_holding: list[dict[str, Any]] = field(default_factory=list)
    proof: ScanResult = field(default_factory=ScanResult)

    @property
    def is_gone(self) -> bool:
        return self.proof.is_clean and self.is_log_empty

    def shown(self) -> dict[str, Any]:
        """The receipt as a JSON object."""
        return {
            "edgeagent_erasure": 1,
            **self.__dict__,
            "erased": {table: n for table, n in self.erased.items() if n},
            "is_gone": self.is_gone,
            "proof": self.proof.__dict__,
        }

    def shown_to_owner(self, database: Path) -> dict[str, Any]:
        """The receipt for a key that may see one owner's data. Everything that depends on other data on
        the device is null: otherwise, whoever stores a guess and erases it could learn whether others have
        the same text, or had it when a backup was made.
        """
        own = dict.fromkeys(self.proof.__dict__) | {"n_probes": self.proof.n_probes}
        is_clean = not any(name.startswith(str(database)) for name in self.proof.residue)
        return self.shown() | {
            "is_gone": is_clean and self.is_log_empty,
            "is_vacuumed": None,
            "backups_holding": None,
            "proof": own,
        }


def label(key: bytes, selector: Selector) -> str:
    """The selector as audited; a subject is a pseudonym, since its name would outlive its data there."""
    given = selector.values()
    if "subject" in given:
        given["subject"] = audit.pseudonym(key, "subject", given["subject"]).partition(":")[2]
    return " ".join(f"{name}:{value}" for name, value in sorted(given.items()))


def erase(
    store: Database, key: bytes, request: ErasureRequest, places: ErasureScope, *, keep_backups: int = 3,
    tell: Callable[[str, int], object] = lambda _what, _n: None,
) -> ErasureReceipt:  # fmt: skip
    """Erase data and prove it. Blocks for as long as reading the state directory takes; other writers
    continue.

    `key`: the audit key. `tell` gets the current stage and the progress in it: "delete" rows, "clean"
    steps, "search" bytes. Raises: LegalHold, NotFound, and what the store raises.
    """
    receipt = ErasureReceipt(request.selector.values(), request.actor, now_ms())
    receipt.held_back = _begin(store, key, request, places)
    probes, digest = Probes(), sha256()
    with recorded(store.journal, request.selector) as mark_done:
        for table in TABLES:
            step = partial(_erase_batch, table=table, selector=request.selector)
            while (batch := _write(store, step)).ids:
                receipt.erased.update(batch.deleted)
                probes.add(*batch.texts)
                for one in (*batch.ids, *batch.texts):
                    digest.update(f"{table} {len(str(one))} {one}\n".encode())
                tell("delete", len(batch.ids))
        receipt.digest = digest.hexdigest()
        end = partial(_end, key=key, request=request, digest=receipt.digest, mark_done=mark_done)
        head = _write(store, end)
    receipt.audit_seq, receipt.audit_mac = head.seq, head.mac.hex()
    receipt.is_log_empty = _clean(store, tell)
    receipt.forgotten = list(places.forget(request.selector))
    older = store.backups.listed()
    if request.drop_backups:
        receipt.backups_removed, older = _replace_backups(store, older), []
    _prove(store, receipt, probes.all(), places, tell)
    receipt.backups_holding = _holding(older, keep_backups, receipt)
    receipt.done_ms = now_ms()
    logger.info(
        "data_erased rows=%d held_back=%d is_gone=%s backups_holding=%d",
        sum(receipt.erased.values()), sum(receipt.held_back.values()), receipt.is_gone,
        len(receipt.backups_holding),
    )  # fmt: skip
    return receipt


@dataclass(frozen=True)
class _Batch:
    ids: list[Any]
    texts: list[str]
    deleted: Counter[str]


def _write(store: Database, fn: Callable[[Any], Any]) -> Any:
    return store.write(fn, essential=True).result()


def _begin(
    store: Database, key: bytes, request: ErasureRequest, places: ErasureScope
) -> dict[str, int]:
    """Refuse, or number the erasure and audit its start. Returns how many rows a legal hold keeps."""
    held = _write(store, partial(_number, store=store, key=key, request=request))
    if held is None:
        # Data that was never stored may still be cached.
        places.forget(request.selector)
        raise NotFound(f"Nothing is stored for {request.selector.named()}: check the spelling.")
    found: dict[str, int] = held
    return found


def _number(
    conn: StoreConnection, *, store: Database, key: bytes, request: ErasureRequest
) -> dict[str, int] | None:
    """Rows under legal hold by table; None if nothing is stored. Raises: LegalHold."""
    is_there = any(ownership.counts(conn, request.selector).values())
    held = ownership.held_counts(conn, request.selector)
    if held and not request.except_held:
        told = ", ".join(f"{n} of {table}" for table, n in held.items())
        raise LegalHold(
            f"Rows of {request.selector.named()} are under legal hold ({told}) and must not be erased: end "
            "the hold with `edgeagent data release`, or erase the rest with --except-held."
        )
    erasure_epochs.advance(conn, store.journal.pseudonym, request.selector)
    # A system prompt may be about anybody; what was computed of it can be computed again.
    is_owner = request.selector.values().keys() == {"owner"}
    if warm_prefixes.forget_owner(conn, request.selector.owner if is_owner else None):
        row_deletion.mark(conn)
        is_there |= is_owner
    if not is_there:
        return None
    row_deletion.prepare(conn)
    audit.append(
        conn, key, actor=request.actor, action="data.erase.begin", object=label(key, request.selector)
    )  # fmt: skip
    return held


def _erase_batch(conn: Connection, *, table: str, selector: Selector) -> _Batch:
    row_key = key_of(table)
    sql = (
        f"select {row_key} from {table} where ({selector.where(table)}) and not {HELD[table]} "
        f"order by {row_key} limit {BATCH}"
    )
    ids = [row[0] for row in conn.execute(sql, selector.values()).fetchall()]
    if not ids:
        return _Batch([], [], Counter())
    texts: list[str] = []
    if table in _TEXTS:
        for one in ids:
            for row in conn.execute(_TEXTS[table], (one,)).fetchall():
                texts += [text for text in row if text]
    deleted = row_deletion.delete(conn, table, ids)
    row_deletion.mark(conn)
    return _Batch(ids, texts, deleted)


def _end(
    conn: Connection, *, key: bytes, request: ErasureRequest, digest: str,
    mark_done: Callable[[Connection], object],
) -> audit.AuditHead:  # fmt: skip
    mark_done(conn)
    return audit.append(
        conn, key, actor=request.actor, action="data.erase", object=label(key, request.selector),
        digest=digest,
    )  # fmt: skip


def _clean(store: Database, tell: Callable[[str, int], object]) -> bool:
    """Clean up; try again while a reader holds the log."""
    deadline = time.monotonic() + CLEAN_TIMEOUT_S
    while not row_deletion.clean(store, lambda _n: tell("clean", 1)):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return True


def _replace_backups(store: Database, older: list[Backup]) -> list[str]:
    """Make a new backup, then delete the older ones and quarantined files."""
    store.backups.take()
    aside = sorted(path for path in store.files.quarantine.rglob("*") if path.is_file())
    for path in (*(backup.path for backup in older), *aside):
        path.unlink(missing_ok=True)
    return [backup.path.name for backup in older] + [path.name for path in aside]


def _prove(
    store: Database, receipt: ErasureReceipt, probes: list[bytes], places: ErasureScope,
    tell: Callable[[str, int], object],
) -> None:  # fmt: skip
    def look() -> ScanResult:
        return residue_scan.search(
            store.files, store.secret.raw if store.secret else None, probes,
            lambda probe: store.read(lambda conn: residue_scan.kept_in(conn, probe)),
            state_dir=places.state_dir, leave_out=places.leave_out,
            tell=lambda n: tell("search", n),
        )  # fmt: skip

    receipt.proof = look()
    database = str(store.files.database)
    if any(name.startswith(database) for name in receipt.proof.residue):
        logger.warning("erasure_residue files=%d", len(receipt.proof.residue))
        store.maintain(_vacuum).result()
        receipt.is_log_empty = store.checkpoint().result()
        receipt.is_vacuumed = True
        receipt.proof = look()


def _vacuum(conn: Connection) -> None:
    conn.execute("vacuum")


def _holding(older: list[Backup], keep: int, receipt: ErasureReceipt) -> list[dict[str, Any]]:
    """Older backups, which may contain the erased data, and when rotation deletes them: as a number of
    backups, since the clock may be wrong. `texts_found`: probes found in it; very short texts leave no
    probes.
    """
    found = []
    for n, backup in enumerate(older):
        n_more = max(1, keep - (len(older) - 1 - n))
        found.append(
            {
                "file": backup.path.name,
                "taken": backup.taken,
                "texts_found": receipt.proof.backups.get(str(backup.path), 0),
                "dropped_after": f"{n_more} more backup{'s' if n_more > 1 else ''}",
            }
        )
    return found


def n_rows(conn: Connection, selector: Selector) -> int:
    """How many rows an export or an erasure will process, for a progress bar."""
    return sum(ownership.counts(conn, selector).values())
