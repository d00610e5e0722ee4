"""The database schema as numbered steps, each applied once to every store.

A step and its record share one transaction. Published steps are never changed; a change is a new step at
the end. Steps are plain functions over `StoreConnection`; they must not end the transaction.
"""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from edgeagent.errors import StoreUnusable
from edgeagent.store import schema
from edgeagent.store.connection import StoreConnection
from edgeagent.store.sql import scalar

logger = logging.getLogger(__name__)

APPLICATION_ID = 0x45444741  # "EDGA", what `file` shows for a plain-text store


@dataclass(frozen=True)
class Migration:
    number: int
    name: str
    apply: Callable[[StoreConnection], object]


def _properties(db: StoreConnection) -> None:
    """Facts about this store, such as the id that its backups share."""
    db.execute("CREATE TABLE properties (name TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT")
    db.execute("INSERT INTO properties VALUES ('store_id', ?)", (uuid.uuid4().hex,))


MIGRATIONS: tuple[Migration, ...] = (
    Migration(1, "properties", _properties),
    Migration(2, "tables", schema.first),
    Migration(3, "threads", schema.second),
    Migration(4, "erasures", schema.third),
    Migration(5, "audio_jobs", schema.fourth),
    Migration(6, "batches", schema.fifth),
    Migration(7, "batch_origins", schema.sixth),
    Migration(8, "batch_holds", schema.seventh),
    Migration(9, "routes", schema.eighth),
    Migration(10, "decisions", schema.ninth),
    Migration(11, "knowledge", schema.tenth),
    Migration(12, "warm_prefixes", schema.eleventh),
)


def version(db: StoreConnection) -> int:
    """The number of the last applied step; 0 for an empty file. Raises: SqliteError."""
    return int(scalar(db, "PRAGMA user_version"))


def refuse_newer(db: StoreConnection, migrations: Sequence[Migration] = MIGRATIONS) -> None:
    """Raises: StoreUnusable for a database of a newer edgeagent."""
    known = migrations[-1].number if migrations else 0
    if version(db) > known:
        raise StoreUnusable(
            f"The database has version {version(db)}, this edgeagent knows {known}: "
            "install the newer edgeagent again, or restore a backup from before it."
        )


def migrate(db: StoreConnection, migrations: Sequence[Migration] = MIGRATIONS) -> list[int]:
    """Apply the missing steps. Returns their numbers. Raises: StoreUnusable."""
    assert [step.number for step in migrations] == list(range(1, len(migrations) + 1))
    refuse_newer(db, migrations)
    taken = []
    is_new = version(db) == 0
    for step in migrations[version(db) :]:
        with db.atomic():
            _take(db, step)
        # A new store applies every step, which is not worth an INFO line.
        level = logging.DEBUG if is_new else logging.INFO
        logger.log(level, "store_migrated number=%d name=%s", step.number, step.name)
        taken.append(step.number)
    return taken


def _take(db: StoreConnection, step: Migration) -> None:
    db.execute(
        "CREATE TABLE IF NOT EXISTS migrations "
        "(number INTEGER PRIMARY KEY, name TEXT NOT NULL, applied_ms INTEGER NOT NULL) STRICT"
    )
    step.apply(db)
    db.execute(
        "INSERT INTO migrations VALUES (?, ?, ?)", (step.number, step.name, time.time_ns() // 10**6)
    )
    db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    db.execute(f"PRAGMA user_version = {step.number}")
