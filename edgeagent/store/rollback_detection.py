"""May this store be served? It may not while nobody can say who is allowed to enter.

Three places remember that keys were made and which were revoked: the database, the journal beside it
(store/journal.py) and the anchor of the audit, best on another disk. Where they contradict each other,
or the keys are gone, the daemon stays locked: it answers 503 to everything but /health until somebody at
the device restores a backup or runs `edgeagent keys reset-access`. It stays up rather than ending, since
a unit that restarts in a circle says less, and the lock ends without a restart.

Who can write all three places, and has older copies of each from the same moment, can put those back
unnoticed; what `audit verify --anchor` compares with an anchor kept elsewhere shows that.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

from edgeagent.errors import EdgeAgentError, StoreLocked
from edgeagent.store import audit, audit_anchor, clock, journal_progress, keys
from edgeagent.store.audit_anchor import AnchorContents
from edgeagent.store.connection import StoreConnection
from edgeagent.store.journal import Journal, JournalContents
from edgeagent.store.journal_progress import JournalProgress
from edgeagent.store.journal_replay import ReplayReport, replay
from edgeagent.store.sql import scalar
from edgeagent.store.store_key import Secret

logger = logging.getLogger(__name__)

_WAY_OUT = (
    "restore what is missing, or run `edgeagent data restore` or `edgeagent keys reset-access` on the "
    "device"
)


@dataclass(frozen=True)
class RollbackEvidence:
    """What the three places say. `audit_seq`: newest audit row of the database."""

    journal: JournalContents | None
    mark: JournalProgress | None
    anchor: AnchorContents | None
    has_keys: bool
    has_rows: bool
    audit_seq: int


def contradiction(facts: RollbackEvidence) -> str | None:
    """Why these places cannot all be what was written; None if they can. Pure.

    1. an anchor that was not written with the key of this store
    2. no journal, though the database or the anchor remembers one; or, from before there were
       journals, an anchor that is ahead of a database without keys
    3. a journal that is another one, or shorter, than the database or the anchor remembers
    4. a journal that does not reach back to where this copy of the database ended
    """
    journal, known = facts.journal, facts.anchor
    if known is not None and known.is_forged:  # 1
        return "The audit anchor was not written with the key of this store"
    if journal is None:  # 2
        if facts.mark is not None or (known is not None and known.journal is not None):
            return "The journal of revocations and erasures is missing"
        if known is not None and known.head.seq > facts.audit_seq and not facts.has_keys:
            return "The audit anchor is from a newer database than this one"
        return None
    if known is not None and known.journal is not None and not journal.holds(known.journal):  # 3
        return "The journal of revocations and erasures is older or another than the anchor knows"
    if facts.mark is not None:
        place, newest_n = facts.mark.place, facts.mark.newest_n
        if not journal.holds(place) or newest_n > journal.head.n:  # 3
            return "The journal of revocations and erasures is older or another than the database knows"
    done_n = facts.mark.place.n if facts.mark is not None else 0
    if done_n < journal.base.n and facts.has_rows:  # 4
        return "The database is older than the journal of revocations and erasures reaches"
    return None


def verdict(facts: RollbackEvidence) -> str | None:
    """Why nothing may be served, as a message; None if it may. Pure."""
    why = contradiction(facts)
    if why is None and facts.journal is not None and facts.journal.is_keyed and not facts.has_keys:
        why = "API keys were made, and the database has none: it was lost, or is from before them"
    return f"{why}: {_WAY_OUT}." if why is not None else None


class RollbackDetector:
    """The memory of one store about who may enter. Any thread; `settle` while nobody else is there."""

    def __init__(self, journal: Journal, anchor_path: Path | None, secret: Secret | None) -> None:
        self._journal = journal
        self._anchor_path = anchor_path
        self._key = audit.key_of(secret)

    def refusal(self, db: StoreConnection) -> str | None:
        """Why nothing may be served now. Reads the files each time."""
        try:
            return verdict(self._facts(db))
        except StoreLocked as exc:
            return exc.message

    def settle(self, db: StoreConnection, *, was_replaced: bool) -> ReplayReport:
        """Begin the journal of a new store; carry out what an older copy of the database lacks.

        `was_replaced`: the database was lost or restored just now. Without a journal nobody knows then
        whether keys were made, and it begins as if they were. Raises: SqliteError, what the disk raises.
        """
        try:
            with self._journal.alone():
                return self._settle(db, was_replaced)
        except StoreLocked as exc:
            logger.error("store_locked reason=%r", exc.message)
            return ReplayReport()

    def accept_loss(self, facts: RollbackEvidence | None) -> JournalContents:
        """An administrator says that this database is to be served: note it in the journal, or begin a new
        one where it is not the one of this database. Older copies of the database are locked then.

        `facts`: None where the journal or the anchor cannot be read.
        """
        if facts is not None and facts.journal is not None and contradiction(facts) is None:
            return self._journal.append("reset")
        known = facts.journal if facts is not None else None
        return self._journal.begin(is_keyed=True, revoked=known.revoked if known else ())

    def facts(self, db: StoreConnection) -> RollbackEvidence | None:
        """What the three places say; None where the journal or the anchor cannot be read."""
        try:
            return self._facts(db)
        except StoreLocked:
            return None

    def _settle(self, db: StoreConnection, was_replaced: bool) -> ReplayReport:
        facts = self._facts(db)
        if contradiction(facts) is not None:
            return ReplayReport()
        journal = facts.journal or self._journal.begin(is_keyed=facts.has_keys or was_replaced)
        done = replay(db, self._journal, journal, self._key)
        if facts.has_keys and not journal.is_keyed:
            journal = self._journal.append("keyed")
        if facts.mark is None or facts.mark.place != journal.head:
            with db.atomic():
                journal_progress.carried_out(db, journal, *(entry.n for entry in journal.entries))
        if facts.anchor is not None and facts.anchor.time_ms > clock.floor_ms(db):
            with db.atomic():  # an older copy knows an older time
                clock.set_floor(db, facts.anchor.time_ms)
        return done

    def _facts(self, db: StoreConnection) -> RollbackEvidence:
        """Raises: StoreLocked for a journal or an anchor that cannot be read."""
        # The journal last: it is written first, and others may be writing.
        known = journal_progress.read(db)
        has_keys, has_rows = keys.is_any_made(db), _has_rows(db)
        audit_seq = int(scalar(db, "select max(seq) from audit") or 0)
        path = self._anchor_path
        try:
            kept = audit_anchor.recall(path, self._key) if path is not None else None
        except EdgeAgentError as exc:
            raise StoreLocked(exc.message) from exc
        return RollbackEvidence(self._journal.read(), known, kept, has_keys, has_rows, audit_seq)


def _has_rows(db: StoreConnection) -> bool:
    """Whether the database holds anything that could have been revoked or erased."""
    tables = ("key", "conversation", "response", "item", "transcript", "feedback", "request")
    found = " or ".join(f"exists (select 1 from {table})" for table in tables)
    return bool(scalar(db, f"select {found}"))
