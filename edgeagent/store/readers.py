"""A few connections for reading while the writer writes: each read sees one state of the database."""

from __future__ import annotations

import contextlib
import queue
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

from edgeagent.errors import StoreBusy, StoreUnusable
from edgeagent.store.connection import (
    SqliteError,
    StoreConnection,
    is_damage,
    is_storage,
    translate,
)

T = TypeVar("T")


class Readers:
    """Any thread may read; it waits while all connections are in use. `close` may be called twice."""

    def __init__(self, connect: Callable[[], StoreConnection], path: Path, n_readers: int) -> None:
        self._connect = connect
        self._path = path
        self._n_readers = n_readers
        self._is_closed = False
        # Connections are opened at first use: each costs up to 2 MB of page cache.
        self._idle: queue.LifoQueue[StoreConnection | None] = queue.LifoQueue()
        for _ in range(n_readers):
            self._idle.put(None)

    def read(
        self,
        fn: Callable[[StoreConnection], T],
        timeout_s: float = 30.0,
        *,
        in_snapshot: bool = True,
    ) -> T:
        """Run `fn` in one read transaction and return its result; without `in_snapshot`, each of its
        statements sees the newest state. `fn` must not read through `Readers` again.

        Raises: StoreBusy, StoreUnusable, StoreDamaged, StorageFailed, and what `fn` raises.
        """
        if self._is_closed:
            raise StoreUnusable("The store is closed: start edgeagent again.")
        try:
            db = self._idle.get(timeout=timeout_s)
        except queue.Empty:
            raise StoreBusy(
                f"All {self._n_readers} readers of the store were busy for {timeout_s:g} s: try again.",
                retry_after_s=1.0,
            ) from None
        try:
            db = db or self._connect()
            if not in_snapshot:
                return fn(db)
            with _snapshot(db):
                return fn(db)
        except SqliteError as exc:
            if not (is_storage(exc) or is_damage(exc)):
                raise
            if db is not None:
                db.close()
                db = None  # the next read opens a new connection
            raise translate(exc, self._path) from exc
        finally:
            self._idle.put(db)

    def close(self) -> None:
        """Wait for running reads, then close every connection."""
        if self._is_closed:
            return
        self._is_closed = True
        for _ in range(self._n_readers):
            db = self._idle.get()
            if db is not None:
                db.close()


@contextlib.contextmanager
def _snapshot(db: StoreConnection) -> Iterator[None]:
    db.conn.execute("BEGIN")
    try:
        yield
    finally:
        if db.conn.in_transaction:
            db.conn.execute("ROLLBACK")
