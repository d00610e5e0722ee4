"""Detects that the database was lost or replaced by an older copy, in which case it must not be served.

Three places record that keys were made and which were revoked: the database, the journal beside it
(store/journal.py) and the anchor of the audit, preferably on another disk. If they contradict each other,
or the keys are gone, the daemon stays locked: it answers 503 to everything but /health until somebody at
the device restores a backup or runs `edgeagent keys reset-access`. It does not exit, since a unit in a
restart loop explains less, and the lock ends without a restart.

An attacker who can write all three places and has older copies of each from the same moment can restore
those unnoticed; `audit verify --anchor` with an anchor that was kept elsewhere detects that.
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
    """Why these places contradict each other; None if they do not. Pure.

    1. the anchor was not written with the key of this store
    2. there is no journal, although the database or the anchor refers to one; or, for data from before
       journals existed, the anchor is ahead of a database without keys
    3. the journal is a different one, or shorter, than the database or the anchor says
    4. the journal does not reach back to where this copy of the database ended
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
        return (
            "The journal of revocations and erasures is older than the anchor says, or another one"
        )
    if facts.mark is not None:
        place, newest_n = facts.mark.place, facts.mark.newest_n
        if not journal.holds(place) or newest_n > journal.head.n:  # 3
            return "The journal of revocations and erasures is older than the database says, or another one"
    done_n = facts.mark.place.n if facts.mark is not None else 0
    if done_n < journal.base.n and facts.has_rows:  # 4
        return (
            "The database is older than the oldest entry of the journal of revocations and erasures"
        )
    return None


def verdict(facts: RollbackEvidence) -> str | None:
    """Why nothing may be served, as a message; None if it may be served. Pure."""
    why = contradiction(facts)
    if why is None and facts.journal is not None and facts.journal.is_keyed and not facts.has_keys:
        why = (
            "API keys were made, but the database has none: it was lost, or is older than the keys"
        )
    return f"{why}: {_WAY_OUT}." if why is not None else None


class RollbackDetector:
    """Collects the evidence of one store. Any thread; `settle` only while no other process has it open."""

    def __init__(self, journal: Journal, anchor_path: Path | None, secret: Secret | None) -> None:
        self._journal = journal
        self._anchor_path = anchor_path
        self._key = audit.key_of(secret)

    def refusal(self, db: StoreConnection) -> str | None:
        """Why nothing may be served now; None if it may. Reads the files each time."""
        try:
            return verdict(self._facts(db))
        except StoreLocked as exc:
            return exc.message

    def settle(self, db: StoreConnection, *, was_replaced: bool) -> ReplayReport:
        """Start the journal of a new store; replay what an older copy of the database lacks.

        `was_replaced`: the database was lost or restored just now. If there is no journal then, nobody
        knows whether keys were made, and the new journal assumes that they were. Raises: SqliteError,
        OSError.
        """
        try:
            with self._journal.alone():
                return self._settle(db, was_replaced)
        except StoreLocked as exc:
            logger.error("store_locked reason=%r", exc.message)
            return ReplayReport()

    def accept_loss(self, facts: RollbackEvidence | None) -> JournalContents:
        """An administrator accepts this database: record it in the journal, or start a new journal if this
        is not the database's own. Older copies of the database are locked from then on.

        `facts`: None if the journal or the anchor cannot be read.
        """
        if facts is not None and facts.journal is not None and contradiction(facts) is None:
            return self._journal.append("reset")
        known = facts.journal if facts is not None else None
        return self._journal.begin(is_keyed=True, revoked=known.revoked if known else ())

    def facts(self, db: StoreConnection) -> RollbackEvidence | None:
        """What the three places say; None if the journal or the anchor cannot be read."""
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
                journal_progress.mark_applied(db, journal, *(entry.n for entry in journal.entries))
        if facts.anchor is not None and facts.anchor.time_ms > clock.floor_ms(db):
            with db.atomic():  # an older copy has an older floor
                clock.set_floor(db, facts.anchor.time_ms)
        return done

    def _facts(self, db: StoreConnection) -> RollbackEvidence:
        """Raises: StoreLocked if the journal or the anchor cannot be read."""
        # Read the journal last: it is written first, and other processes may be writing.
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
    """Whether the database has anything that could have been revoked or erased."""
    tables = ("key", "conversation", "response", "item", "transcript", "feedback", "request")
    found = " or ".join(f"exists (select 1 from {table})" for table in tables)
    return bool(scalar(db, f"select {found}"))
