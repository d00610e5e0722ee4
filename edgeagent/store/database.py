"""The database of one daemon: one writer and a few readers; opened only if it is sound."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

from edgeagent.durable import sync_folder
from edgeagent.errors import EdgeAgentError, StorageFull, StoreUnusable
from edgeagent.settings import Settings
from edgeagent.store import journal_progress
from edgeagent.store.backup import Backups
from edgeagent.store.connection import (
    SqliteError,
    StoreConnection,
    check_sqlite,
    connect,
    from_os,
    set_wal,
    translate,
)
from edgeagent.store.database_files import StoreFiles, StoreLock
from edgeagent.store.disk_reserve import LEAST_BYTES, DiskReserve
from edgeagent.store.journal import LONG_ENTRIES, Journal
from edgeagent.store.migrations import MIGRATIONS, Migration, migrate, refuse_newer, version
from edgeagent.store.readers import Readers
from edgeagent.store.recovery import StoreNotice, prepare
from edgeagent.store.rollback_detection import RollbackDetector
from edgeagent.store.store_key import Secret, obtain
from edgeagent.store.writer import WriteJob, Writer

logger = logging.getLogger(__name__)

T = TypeVar("T")


@dataclass(frozen=True)
class StoreOptions:
    """How a store is used. `synchronous` other than FULL loses acknowledged writes: for measurements only.
    `anchor`: the file outside the store that records the heads of its audit and its journal."""

    group_window_ms: float = 0.0
    reserve_bytes: int = 32 << 20
    n_readers: int = 3
    n_backups: int = 3
    synchronous: Literal["FULL", "NORMAL"] = "FULL"
    anchor: Path | None = None


def open_store(settings: Settings) -> Database:
    """Open the store that the settings describe; its key is created at the first start.

    Blocks: reads the whole database once to check it. Raises: KeyUnusable, StoreUnusable, StorageFull,
    StorageFailed.
    """
    options = StoreOptions(
        group_window_ms=settings.store.group_window_ms,
        reserve_bytes=settings.store.reserve_bytes,
        n_backups=settings.store.n_backups,
        anchor=settings.effective_audit_anchor,
    )
    try:
        return Database(settings.store_dir, obtain(settings), options)
    except StorageFull as exc:
        raise StorageFull(
            f"The store in {settings.store_dir} cannot be opened, its disk is full or read-only: free space, "
            "choose another --state-dir, or set store.enabled = false."
        ) from exc


class Database:
    """Any thread or task may read and write; `close` may be called twice.

    Several processes may have one store open; the process that opens it alone checks, migrates and repairs
    it.
    """

    def __init__(
        self,
        folder: Path,
        secret: Secret | None,
        options: StoreOptions = StoreOptions(),
        migrations: Sequence[Migration] = MIGRATIONS,
    ) -> None:
        check_sqlite()
        self.files = StoreFiles(folder)
        self.secret = secret
        self.options = options
        self._key = secret.raw if secret else None
        self.backups = Backups(self.files, self._key, options.n_backups)
        self.notices: list[StoreNotice] = []
        self.disk_reserve = DiskReserve(self.files.disk_reserve, options.reserve_bytes)
        self.journal = Journal(self.files, secret, self.disk_reserve)
        self.rollback_detector = RollbackDetector(self.journal, options.anchor, secret)
        try:
            self._db = self._open(migrations)
        except StorageFull:
            if not self.disk_reserve.release(LEAST_BYTES):
                raise
            self._db = self._open(migrations)
        self._writer = Writer(
            self._db,
            self.files.database,
            group_window_ms=options.group_window_ms,
            reserve_bytes=options.reserve_bytes,
            disk_reserve=self.disk_reserve,
        )
        self._readers = Readers(
            lambda: connect(self.files.database, self._key, role="reader"),
            self.files.database,
            options.n_readers,
        )
        self._pool = ThreadPoolExecutor(options.n_readers, thread_name_prefix="store-reader")

    # ---- writing

    def write(self, fn: Callable[[StoreConnection], T], *, essential: bool = False) -> Future[T]:
        """Run `fn` in the next commit; the future has its result once that is on disk.

        `fn` returns plain data, touches only the database, and may run twice. `essential` writes (erasure,
        audit) may use the disk reserve. Never blocks.

        Raises: StoreBusy, StoreUnusable. The future may raise StorageFull, StorageFailed, StoreDamaged,
        and what `fn` raises.
        """
        return self._writer.submit(WriteJob(fn, essential=essential))

    async def write_async(
        self, fn: Callable[[StoreConnection], T], *, essential: bool = False
    ) -> T:
        """`write` for the event loop. Nothing is written if it is cancelled before it begins."""
        return await asyncio.wrap_future(self.write(fn, essential=essential))

    def maintain(self, fn: Callable[[StoreConnection], T]) -> Future[T]:
        """Run `fn` between commits and outside of any transaction: VACUUM, checkpoints, `db.atomic()`."""
        return self._writer.submit(WriteJob(fn, alone=True))

    def checkpoint(self) -> Future[bool]:
        """Copy the write-ahead log into the file and truncate it. False if a reader prevented that."""
        return self._writer.submit(WriteJob(_truncate, essential=True, alone=True))

    @property
    def is_journal_long(self) -> bool:
        """Whether backups should be made early, so that old ones whose restore needs old entries can be
        deleted."""
        found = self.journal.read()
        return found is not None and len(found.entries) >= LONG_ENTRIES

    def compact_journal(self) -> bool:
        """Drop the entries of a long journal that this database and every backup have applied."""
        known = self.read(journal_progress.read)
        if known is None:
            return False
        oldest = self.backups.least_entry()
        return self.journal.compact(known.place.n if oldest is None else min(known.place.n, oldest))

    # ---- reading

    def read(self, fn: Callable[[StoreConnection], T]) -> T:
        """Run `fn` in one read transaction, which sees everything acknowledged before, and return its
        result.

        `fn` returns plain data (no cursor or generator). Blocks; on the event loop use `read_async`.
        Raises: StoreBusy, StoreDamaged, StorageFailed, StoreUnusable, and what `fn` raises.
        """
        return self._readers.read(fn)

    async def read_async(self, fn: Callable[[StoreConnection], T]) -> T:
        """`read` on a thread of the store."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, self.read, fn)

    # ---- state

    @property
    def refusal(self) -> EdgeAgentError | None:
        """Why writes fail at present; None after a successful one."""
        return self._writer.refusal

    def counts(self) -> dict[str, int]:
        """Commits and writes since the start: their ratio shows what the group window saves."""
        return {"n_commits": self._writer.n_commits, "n_writes": self._writer.n_writes}

    def close(self) -> None:
        """Finish what was submitted, then close every file."""
        self._writer.close()
        self._pool.shutdown()
        self._readers.close()
        self.disk_reserve.refill()  # because closing copies the log into the file
        self._db.close()
        self._lock.close()

    def __enter__(self) -> Database:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()

    # ---- opening

    def _open(self, migrations: Sequence[Migration]) -> StoreConnection:
        """The writing connection to a sound, migrated database."""
        with contextlib.ExitStack() as undo:
            try:
                self.files.make()
                self._lock = StoreLock(self.files.folder)
                undo.callback(self._lock.close)
                db = None
                if self._lock.take():
                    self.notices, db = prepare(self.files, self.secret, self.backups, migrations)
                    # The log and its index get the mode of this file.
                    self.files.database.touch(mode=0o600)
                db = db or connect(self.files.database, self._key, role="writer")
                undo.callback(db.close)
                self._begin(db, migrations)
                if self._lock.is_alone:
                    self._settle(db)
                self.disk_reserve.refill()
            except SqliteError as exc:
                raise translate(exc, self.files.database) from exc
            except OSError as exc:
                raise from_os(exc, self.files.database) from exc
            self._lock.share()
            undo.pop_all()
            return db

    def _begin(self, db: StoreConnection, migrations: Sequence[Migration]) -> None:
        if self._lock.is_alone:
            if version(db) == 0:
                # Lets freed pages return to the disk; can only be set on an empty file.
                db.execute("PRAGMA auto_vacuum = INCREMENTAL")
            set_wal(db, self.options.synchronous)
            migrate(db, migrations)
            sync_folder(
                self.files.folder
            )  # SQLite does not sync the directory entry of a new database
            return
        set_wal(db, self.options.synchronous)
        refuse_newer(db, migrations)
        if version(db) < len(migrations):
            raise StoreUnusable(
                f"Another process has the store open at version {version(db)}, this edgeagent needs "
                f"version {len(migrations)}: stop that process first."
            )

    def _settle(self, db: StoreConnection) -> None:
        """Replay what an older copy lacks, before anybody reads it (store/rollback_detection.py)."""
        was_replaced = any(n.code in ("store_lost", "store_restored") for n in self.notices)
        done = self.rollback_detector.settle(db, was_replaced=was_replaced)
        if done:
            notice = StoreNotice("store_replayed", done.told())
            logger.warning("%s %s", notice.code, notice.message)
            self.notices.append(notice)


def _truncate(db: StoreConnection) -> bool:
    row: Any = db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    return bool(row[0] == 0)
