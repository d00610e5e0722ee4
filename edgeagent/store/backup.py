"""Backups of the database: taken while it is in use, encrypted with its key, and verified before they
count.

Only SQLite's online backup reads a live database as one state; copying the file does not. A copy gets its
final name after it has been opened and fully checked, so every file with such a name is a sound backup.
"""

from __future__ import annotations

import contextlib
import logging
import re
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from edgeagent.durable import sync_file, sync_folder
from edgeagent.errors import BackupFailed, EdgeAgentError
from edgeagent.store import journal_progress
from edgeagent.store.connection import SqliteError, StoreConnection, complaints, connect, translate
from edgeagent.store.database_files import StoreFiles, beside
from edgeagent.store.migrations import version
from edgeagent.store.sql import scalar

logger = logging.getLogger(__name__)

# Backups are ordered by number: a device may boot in 1970, and its clock may jump back.
_NAME = re.compile(r"edgeagent-(\d{6,})-(\d{8}T\d{6}Z)\.db")


@dataclass(frozen=True)
class Backup:
    """One verified backup. `taken`: UTC by the device's clock, which may have been wrong."""

    path: Path
    number: int
    taken: str


@dataclass(frozen=True)
class BackupCheck:
    """The result of verifying a backup."""

    version: int
    size_bytes: int
    store_id: str | None


class Backups:
    """The backups of one store. Any thread; simultaneous backups run one after the other."""

    def __init__(self, files: StoreFiles, key: bytes | None, keep: int = 3) -> None:
        self._files = files
        self._key = key
        self._keep = keep
        self._turn = threading.Lock()

    def listed(self) -> list[Backup]:
        """Oldest first. Raises: OSError."""
        found = []
        for path in self._files.backups.glob("edgeagent-*.db"):
            if match := _NAME.fullmatch(path.name):
                found.append(Backup(path, int(match[1]), match[2]))
        return sorted(found, key=lambda backup: backup.number)

    def take(self) -> Backup:
        """Copy, verify and name a backup, and delete the oldest. Readers and writers continue meanwhile.

        Blocks for as long as it takes to read the database twice. Raises: BackupFailed, StorageFull,
        StorageFailed, StoreDamaged.
        """
        with self._turn:
            known = self.listed()
            number = known[-1].number + 1 if known else 1
            taken = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
            path = self._files.backups / f"edgeagent-{number:06d}-{taken}.db"
            draft = path.with_name(f".{path.name}.part")
            try:
                self.sweep()
                self._copy(draft)
                found = self.verify(draft)
                sync_file(draft)
                draft.replace(path)
                sync_folder(path.parent)
            except OSError as exc:
                raise BackupFailed(f"Backup {path} cannot be made: {exc}. Check the disk.") from exc
            finally:
                _remove(draft)
            logger.info("store_backup number=%d size_bytes=%d", number, found.size_bytes)
            self._rotate()
            return Backup(path, number, taken)

    def verify(self, path: Path) -> BackupCheck:
        """Open a backup with our key and read all of it. Raises: BackupFailed."""
        if not path.is_file():
            raise BackupFailed(f"Backup {path} is not there: `edgeagent data backup` makes one.")
        try:
            db = connect(path, self._key, role="copy")
        except EdgeAgentError as exc:
            raise BackupFailed(f"Backup {path} cannot be opened: {exc.message}") from exc
        try:
            wrong = complaints(db)
            if wrong:
                raise BackupFailed(f"Backup {path} is damaged ({wrong[0]}): use another one.")
            return BackupCheck(version(db), path.stat().st_size, _store_id(db))
        except SqliteError as exc:
            raise BackupFailed(
                f"Backup {path} does not open with this key ({exc}): use the key that it was made with, or "
                "use another one."
            ) from exc
        finally:
            db.close()

    def newest_sound(self) -> Backup | None:
        """The newest backup that passes verification now. Raises: OSError."""
        for backup in reversed(self.listed()):
            try:
                self.verify(backup.path)
            except BackupFailed as exc:
                logger.warning("store_backup_unsound number=%d", backup.number, exc_info=exc)
                continue
            return backup
        return None

    def least_entry(self) -> int | None:
        """The lowest journal entry number up to which some backup has applied the journal; None without
        backups. Unreadable backups do not count, since they cannot be restored. Raises: OSError."""
        found = []
        for backup in self.listed():
            with contextlib.suppress(EdgeAgentError, SqliteError):
                db = connect(backup.path, self._key, role="copy")
                try:
                    known = journal_progress.read(db)
                finally:
                    db.close()
                found.append(known.place.n if known is not None else 0)
        return min(found, default=None)

    def sweep(self) -> None:
        """Remove the remains of an interrupted backup. Raises: OSError."""
        for draft in self._files.backups.glob(".edgeagent-*.part*"):
            draft.unlink(missing_ok=True)

    def _copy(self, draft: Path) -> None:
        source = connect(self._files.database, self._key, role="reader")
        try:
            # Create the file ourselves, with the same mode as the key file and the database.
            draft.touch(mode=0o600)
            target = connect(draft, self._key, role="copy")
            try:
                # In one step: with smaller steps, every write in between would restart the copy.
                source.conn.backup(target.conn)
                # The copy of a WAL database is in WAL mode too; a single file is easier to move and check.
                target.execute("PRAGMA journal_mode = DELETE").fetchall()
            finally:
                target.close()
        except SqliteError as exc:
            raise translate(exc, draft) from exc
        finally:
            source.close()

    def _rotate(self) -> None:
        for backup in self.listed()[: -self._keep]:
            _remove(backup.path)
            logger.info("store_backup_dropped number=%d", backup.number)


def _store_id(db: StoreConnection) -> str | None:
    with contextlib.suppress(SqliteError):
        return str(scalar(db, "SELECT value FROM properties WHERE name = 'store_id'"))
    return None


def _remove(path: Path) -> None:
    for each in (path, *beside(path), Path(f"{path}-journal")):
        each.unlink(missing_ok=True)
