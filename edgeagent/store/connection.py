"""One connection to the encrypted file. The only module that uses SQLCipher.

The closures of `Database.write` and `read` get a `StoreConnection`. It is our own class and not
sqlite-utils': the store would need two calls of that library, which costs every daemon 15 MB of memory (it
brings date parsers, plugins and tables), a quarter of an idle daemon.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import sqlcipher3.dbapi2 as sqlcipher

from edgeagent.errors import (
    EdgeAgentError,
    StorageFailed,
    StorageFull,
    StoreDamaged,
    StoreUnusable,
)
from edgeagent.store.sql import scalar


class StoreConnection:
    """One connection: statements with bound values, and transactions. One thread at a time."""

    def __init__(self, conn: Any) -> None:
        self.conn = conn

    def execute(self, sql: str, values: Sequence[Any] | Mapping[str, Any] = ()) -> Any:
        """Run one statement. Returns a DB-API 2 cursor. Raises: SqliteError."""
        return self.conn.execute(sql, values)

    @contextlib.contextmanager
    def atomic(self) -> Iterator[None]:
        """Run the block in a transaction, which is rolled back if the block raises."""
        self.conn.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self.conn.execute("ROLLBACK")
            raise
        self.conn.execute("COMMIT")

    def close(self) -> None:
        self.conn.close()


SqliteError: type[Exception] = sqlcipher.Error
SqliteWarning: type[Exception] = sqlcipher.Warning  # two statements where one is expected
IntegrityError: type[Exception] = sqlcipher.IntegrityError
# Python's `sqlite3` has this too, but would load a second SQLite library into the daemon (1 MB).
complete_statement: Callable[[str], bool] = sqlcipher.complete_statement

# Earlier versions can corrupt a WAL database with two connections of one process (sqlite.org/wal.html,
# "The WAL-reset bug", 3.7.0 to 3.51.2).
LEAST_SQLITE = (3, 51, 3)
PLAIN_HEADER = b"SQLite format 3\x00"

# SQLCipher's cipher_memory_security stays off: it wipes and locks each allocation of SQLite, which made
# small inserts 6 times slower (74k/s -> 12k/s, x86-64 VM, 2026-11). The systemd unit prevents swap and dumps.
_EVERY = (
    "PRAGMA cipher_log_level = NONE",  # it would write to our stderr
    "PRAGMA foreign_keys = ON",
    "PRAGMA trusted_schema = OFF",
    "PRAGMA cell_size_check = ON",
    "PRAGMA temp_store = MEMORY",  # keep content out of /tmp
    "PRAGMA mmap_size = 0",  # an I/O error must raise an exception and not SIGBUS
)
_WRITER = (
    "PRAGMA secure_delete = ON",
    "PRAGMA journal_size_limit = 8388608",
    "PRAGMA wal_autocheckpoint = 1000",
)
_READER = ("PRAGMA query_only = ON", "PRAGMA cache_size = -2000")

_FULL, _IOERR, _READONLY, _CANTOPEN, _CORRUPT, _NOTADB, _BUSY = 13, 10, 8, 14, 11, 26, 5
_CODES = {
    "database or disk is full": _FULL,
    "disk I/O error": _IOERR,
    "database disk image is malformed": _CORRUPT,
    "file is not a database": _NOTADB,
}
_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS}


def sqlite_version() -> tuple[int, ...]:
    """The version of SQLite in SQLCipher."""
    return tuple(sqlcipher.sqlite_version_info)


def check_sqlite(version: tuple[int, ...] = sqlcipher.sqlite_version_info) -> None:
    """Raises: StoreUnusable for a version of SQLite that can lose data."""
    if tuple(version) < LEAST_SQLITE:
        raise StoreUnusable(
            f"SQLite {'.'.join(map(str, version))} can corrupt a database in WAL mode, "
            f"the oldest safe version is {'.'.join(map(str, LEAST_SQLITE))}: upgrade sqlcipher3."
        )


def connect(
    path: Path,
    key: bytes | None,
    *,
    role: Literal["writer", "reader", "copy"],
    busy_timeout_s: float = 10.0,
) -> StoreConnection:
    """Open `path` with a raw 32-byte key, or as plain text with None. Role "copy": no tuning, no WAL.

    Wrong keys and damage show at the first read, not here. Raises: what `translate` gives.
    """
    check_sqlite()
    try:
        # Autocommit: transactions begin and end only where this package does it.
        conn = sqlcipher.connect(
            str(path), timeout=busy_timeout_s, isolation_level=None, check_same_thread=False
        )
    except SqliteError as exc:
        raise translate(exc, path) from exc
    try:
        conn.execute(_EVERY[0])
        if key is not None:
            # Not by PRAGMA: the text of statements is cached in memory.
            conn.set_key(f"x'{key.hex()}'")
        for pragma in (*_EVERY, *{"writer": _WRITER, "reader": _READER, "copy": ()}[role]):
            conn.execute(pragma)
        return StoreConnection(conn)
    except SqliteError as exc:
        conn.close()
        raise translate(exc, path) from exc


def set_wal(db: StoreConnection, synchronous: Literal["FULL", "NORMAL"]) -> None:
    """Turn on the write-ahead log and check that it is on. Raises: StoreUnusable or SqliteError."""
    mode = scalar(db, "PRAGMA journal_mode = WAL")
    if mode != "wal":
        raise StoreUnusable(
            f"The file system of the store only allows journal mode {mode}, wal is needed: "
            "put state_dir on a local disk."
        )
    db.execute(f"PRAGMA synchronous = {synchronous}")


def complaints(db: StoreConnection, *, is_whole: bool = True) -> list[str]:
    """Errors in the file: checks the authentication code of each page, then the structure of the trees.

    `is_whole`: the write-ahead log has been checkpointed; otherwise pages that the log replaces may be
    torn, and only pages reachable through the trees are checked. Reads the whole file. Raises: SqliteError
    where SQLite cannot continue.
    """
    checks = ["PRAGMA cipher_integrity_check", "PRAGMA quick_check"][0 if is_whole else 1 :]
    found = [str(row[0]) for check in checks for row in db.execute(check).fetchall()]
    return [line for line in found if line != "ok"][:20]


def is_damage(exc: BaseException) -> bool:
    return _code(exc) in (_CORRUPT, _NOTADB)


def is_storage(exc: BaseException) -> bool:
    """Whether the disk, not the statement, caused the error."""
    return _code(exc) in (_FULL, _IOERR, _READONLY, _CANTOPEN)


def _code(exc: BaseException) -> int | None:
    """SQLite's primary result code; backup errors of the wheel have only the text."""
    return getattr(exc, "sqlite_errorcode", None) or _CODES.get(str(exc))


def translate(exc: Exception, path: Path) -> EdgeAgentError:
    """Our error for an SQLite error on the database `path`."""
    code = _code(exc)
    if code in (_CORRUPT, _NOTADB):
        return StoreDamaged(
            f"Database {path} is damaged ({exc}): restart edgeagent, which moves it away and restores "
            "the last verified backup."
        )
    if code == _FULL:
        return full(path)
    if is_storage(exc):
        return _from_disk(exc, path)
    if code == _BUSY:
        return StoreUnusable(
            f"Database {path} is locked by another process: end that process, then try again."
        )
    return StorageFailed(f"Database {path} reports an error: {exc}. The log has the details.")


def full(path: Path, reserve_bytes: int = 0) -> StorageFull:
    kept = f" of which {reserve_bytes >> 20} MiB are reserved" if reserve_bytes else ""
    try:
        room = f"{shutil.disk_usage(path.parent).free >> 20} MiB"
    except OSError:
        room = "unknown room"
    return StorageFull(
        f"The disk of {path.parent} has {room} left,{kept or ' too little'}: nothing is stored until "
        "space is freed; reading still works."
    )


def from_os(exc: OSError, path: Path) -> EdgeAgentError:
    """Our error for an operating system error on the disk of `path`."""
    folder = path.parent
    if exc.errno == errno.EROFS:
        return StorageFull(
            f"The disk of {folder} is mounted read-only, so nothing can be stored: check the disk and "
            "remount it; reading still works."
        )
    if exc.errno in _NO_ROOM:
        return full(path)
    if exc.errno in (errno.EACCES, errno.EPERM):
        return StoreUnusable(
            f"{exc.filename or folder} is not writable ({exc.strerror}): give it to the user that "
            "runs edgeagent, or change state_dir."
        )
    return StorageFailed(
        f"The disk of {folder} reports an error: {exc.strerror}. Check it, or choose another state_dir."
    )


def _from_disk(exc: Exception, path: Path) -> EdgeAgentError:
    """SQLite does not say why the disk failed, so try to write to it."""
    try:
        with tempfile.TemporaryFile(dir=path.parent) as probe:
            sizes = [each.stat().st_size for each in path.parent.glob(f"{path.name}*")]
            probe.seek(max(sizes, default=0))  # a file system may limit the size of a file
            probe.write(bytes(65536))
            os.fsync(probe.fileno())
    except OSError as refusal:
        return from_os(refusal, path)
    return StorageFailed(f"The disk of {path} failed a request ({exc}): check the disk.")
