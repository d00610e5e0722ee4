"""The writer thread: takes closures, returns futures, and commits everything that waits together.

    wait for a write, and up to the group window for more
    BEGIN; each closure in its own savepoint; COMMIT, which syncs the disk
    only then set the result of every future

A closure that raises only loses its own changes. If one ends the whole transaction (a full disk, a
RAISE(ROLLBACK)), the others run again, each in its own transaction; therefore closures must touch only the
database.

Source: datasette's write thread; group commit after DeWitt et al. 1984.
"""

from __future__ import annotations

import contextlib
import logging
import queue
import shutil
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgeagent.errors import EdgeAgentError, StoreBusy, StoreUnusable
from edgeagent.store.connection import (
    SqliteError,
    StoreConnection,
    full,
    is_damage,
    is_storage,
    translate,
)
from edgeagent.store.disk_reserve import DiskReserve

logger = logging.getLogger(__name__)

BATCH = 256  # closures in one commit
INBOX = 8192  # closures that may wait
RETRY_AFTER_S = 1.0

# SQLite calls the authorizer once for each statement text: these texts differ from those of any closure.
_BEGIN, _COMMIT, _ROLLBACK = (
    f"{word} /* group */" for word in ("BEGIN IMMEDIATE", "COMMIT", "ROLLBACK")
)
_SQLITE_TRANSACTION, _DENY, _OK = 22, 1, 0


@dataclass
class WriteJob:
    """One closure and its future. `alone`: run outside of any transaction."""

    run: Callable[[StoreConnection], Any]
    essential: bool = False
    alone: bool = False
    future: Future[Any] = field(default_factory=Future)

    def fail(self, exc: BaseException) -> None:
        self.future.set_exception(exc)


class Writer:
    """Owns the writing connection. `submit` from any thread; `close` from any other, once or more."""

    def __init__(
        self, db: StoreConnection, path: Path, *, group_window_ms: float = 0.0, reserve_bytes: int = 0,
        disk_reserve: DiskReserve | None = None,
    ) -> None:  # fmt: skip
        self._db = db
        self._path = path
        self._window_s = group_window_ms / 1000
        self._reserve_bytes = reserve_bytes
        self._disk_reserve = disk_reserve
        self._inbox: queue.SimpleQueue[WriteJob | None] = queue.SimpleQueue()
        self._gate = threading.Lock()
        self._is_closed = False
        self._may_end = False
        self.refusal: EdgeAgentError | None = None
        self.n_commits = 0
        self.n_writes = 0
        db.conn.set_authorizer(self._authorize)
        self._thread = threading.Thread(target=self._loop, name="store-writer", daemon=True)
        self._thread.start()

    def submit(self, job: WriteJob) -> Future[Any]:
        """Raises: StoreBusy when too many wait, StoreUnusable after `close`."""
        with self._gate:  # nothing may be queued after the sentinel of `close`
            if self._is_closed:
                raise StoreUnusable("The store is closed: start edgeagent again.")
            if self._inbox.qsize() >= INBOX:
                raise StoreBusy(
                    f"{INBOX} writes wait for the disk, which is the limit: try again later.",
                    retry_after_s=RETRY_AFTER_S,
                )
            self._inbox.put(job)
        return job.future

    def close(self) -> None:
        """Finish the submitted writes, then end the thread. The connection stays open."""
        with self._gate:
            if not self._is_closed:
                self._is_closed = True
                self._inbox.put(None)
        self._thread.join()

    # ---- on the writer's thread

    def _loop(self) -> None:
        while (job := self._inbox.get()) is not None:
            batch = [job]
            is_last = self._gather(batch)
            try:
                self._run(batch)
            except BaseException as exc:
                logger.error("store_writer_failed", exc_info=exc)
                for left in batch:
                    if not left.future.done():
                        left.fail(exc)
            if is_last:
                return

    def _gather(self, batch: list[WriteJob]) -> bool:
        """Add writes that wait already or arrive within the window. True: the inbox was closed."""
        deadline = time.monotonic() + self._window_s
        while len(batch) < BATCH:
            left_s = deadline - time.monotonic()
            try:
                job = self._inbox.get(timeout=left_s) if left_s > 0 else self._inbox.get_nowait()
            except queue.Empty:
                return False
            if job is None:
                return True
            batch.append(job)
        return False

    def _run(self, batch: list[WriteJob]) -> None:
        """Run closures in order; those without a transaction run between the groups."""
        group: list[WriteJob] = []
        for job in batch:
            if not job.future.set_running_or_notify_cancel():
                continue
            if job.alone:
                self._commit_group(group)
                group = []
                self._run_alone(job)
            else:
                group.append(job)
        self._commit_group(group)

    def _commit_group(self, group: list[WriteJob]) -> None:
        todo = self._with_room(group)
        if not todo:
            return
        again = self._transaction(todo)
        while again:
            again = self._transaction(again[:1]) + again[1:]

    def _with_room(self, group: list[WriteJob]) -> list[WriteJob]:
        """Refuse ordinary writes while only the reserve is left on the disk, which erasing needs."""
        if not group or not self._reserve_bytes:
            return group
        try:
            if shutil.disk_usage(self._path.parent).free >= self._reserve_bytes:
                if self._disk_reserve is not None:
                    self._disk_reserve.refill(self._reserve_bytes)
                return group
        except OSError:
            return group  # the write itself will raise a better error
        for job in group:
            if not job.essential:
                job.fail(self._refused(full(self._path, self._reserve_bytes)))
        return [job for job in group if job.essential]

    def _transaction(self, group: list[WriteJob]) -> list[WriteJob]:
        """Run and commit a group; finish every job except those that must run again, which are returned."""
        results: list[tuple[WriteJob, Any]] = []
        again: list[WriteJob] = []
        try:
            self._control(_BEGIN)
            for n, job in enumerate(group):
                try:
                    results.append((job, self._in_savepoint(job)))
                except BaseException as exc:
                    if self._makes_room(job, exc):
                        again.append(job)
                    else:
                        job.fail(self._outward(exc))
                    if not self._db.conn.in_transaction:
                        return [done for done, _ in results] + again + group[n + 1 :]
            self._control(_COMMIT)
        except SqliteError as exc:
            self._end_transaction()
            for job in group:
                if job.future.done() or job in again:
                    continue
                if self._makes_room(job, exc):
                    again.append(job)
                else:
                    job.fail(self._refused(translate(exc, self._path)))
            return again
        self._committed(len(results))
        for job, result in results:
            job.future.set_result(result)
        return again

    def _makes_room(self, job: WriteJob, exc: BaseException) -> bool:
        """On a full disk, free a part of the reserve for an essential write. True: try again."""
        return (
            job.essential
            and self._disk_reserve is not None
            and is_storage(exc)
            and self._disk_reserve.release()
        )

    def _in_savepoint(self, job: WriteJob) -> Any:
        self._db.conn.execute("SAVEPOINT one_write")
        try:
            result = job.run(self._db)
            self._db.conn.execute("RELEASE one_write")
        except BaseException:
            if self._db.conn.in_transaction:
                self._db.conn.execute("ROLLBACK TO one_write")
                self._db.conn.execute("RELEASE one_write")
            raise
        return result

    def _run_alone(self, job: WriteJob) -> None:
        self._may_end = True
        try:
            result = job.run(self._db)
        except BaseException as exc:
            self._end_transaction()
            if self._makes_room(job, exc):
                self._run_alone(job)
            else:
                job.fail(self._outward(exc))
            return
        finally:
            self._may_end = False
        self._end_transaction()
        job.future.set_result(result)

    # ---- small parts

    def _control(self, sql: str) -> None:
        self._may_end = True
        try:
            self._db.conn.execute(sql)
        finally:
            self._may_end = False

    def _end_transaction(self) -> None:
        if self._db.conn.in_transaction:
            with contextlib.suppress(SqliteError):
                self._control(_ROLLBACK)

    def _authorize(self, action: int, *_rest: Any) -> int:
        """A closure must not end the transaction that it shares with others."""
        return _DENY if action == _SQLITE_TRANSACTION and not self._may_end else _OK

    def _outward(self, exc: BaseException) -> BaseException:
        """The exception for a closure's caller: disk and file errors are translated, others unchanged."""
        if isinstance(exc, SqliteError) and (is_storage(exc) or is_damage(exc)):
            ours = self._refused(translate(exc, self._path))
            ours.__cause__ = exc
            return ours
        return exc

    def _refused(self, refusal: EdgeAgentError) -> EdgeAgentError:
        if self.refusal is None or self.refusal.code != refusal.code:
            logger.warning("store_refuses_writes code=%s", refusal.code)
        self.refusal = refusal
        return refusal

    def _committed(self, n_writes: int) -> None:
        if n_writes and self.refusal is not None:
            logger.warning("store_writes_again after=%s", self.refusal.code)
            self.refusal = None
        self.n_commits += 1
        self.n_writes += n_writes
