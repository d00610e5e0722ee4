"""The paths of a store's files, and the locks between processes that use one folder."""

from __future__ import annotations

import fcntl
import os
import time
from dataclasses import dataclass
from pathlib import Path

from edgeagent.errors import StoreUnusable

LOCK_TIMEOUT_S = 30.0
_POLL_S = 0.05


@dataclass(frozen=True)
class StoreFiles:
    """The paths inside one store folder. The key is not among them (store/store_key.py)."""

    folder: Path

    @property
    def database(self) -> Path:
        return self.folder / "edgeagent.db"

    @property
    def seal(self) -> Path:
        """Distinguishes a wrong key from a damaged file, and says how the key is derived."""
        return self.folder / "seal.json"

    @property
    def journal(self) -> Path:
        """Revocations and erasures, which must outlive the database (store/journal.py)."""
        return self.folder / "journal"

    @property
    def journal_lock(self) -> Path:
        return self.folder / "journal.lock"

    @property
    def restoring(self) -> Path:
        """A complete, verified copy that is about to become the database."""
        return self.folder / "restoring.db"

    @property
    def disk_reserve(self) -> Path:
        """Disk space reserved for essential writes on a full disk (store/disk_reserve.py)."""
        return self.folder / "ballast"

    @property
    def erased(self) -> Path:
        """Touched by an erasure from outside the daemon, which then clears its caches."""
        return self.folder / "erased"

    @property
    def prefixes(self) -> Path:
        """Computed prefixes of dialogues (store/prefixes.py)."""
        return self.folder / "prefixes"

    @property
    def recordings(self) -> Path:
        """Sealed audio of transcription jobs (store/recording_files.py)."""
        return self.folder / "recordings"

    @property
    def backups(self) -> Path:
        return self.folder / "backups"

    @property
    def quarantine(self) -> Path:
        return self.folder / "quarantine"

    def make(self) -> None:
        """Create the folders, readable by their owner only. Raises: OSError."""
        for folder in (
            self.folder, self.backups, self.quarantine, self.prefixes, self.recordings,
        ):  # fmt: skip
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)


def beside(database: Path) -> tuple[Path, Path]:
    """The write-ahead log and its index, which belong to a database file."""
    return Path(f"{database}-wal"), Path(f"{database}-shm")


class FolderLock:
    """An advisory lock on a folder, which the kernel releases when the process ends.

    The folder itself is locked, since a lock file could be deleted and created again while it is held.
    Where the file system cannot lock folders (NFS), the file `name` in it is locked. Child processes do not
    inherit the lock. Any thread; `close` may be called twice.
    """

    def __init__(self, folder: Path, name: str) -> None:
        """Raises: OSError if the folder cannot be opened."""
        self._file = folder / name
        self._fd: int | None = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._is_folder = True

    def try_lock(self, kind: int) -> bool:
        """Try to take LOCK_EX (exclusive) or LOCK_SH (shared); returns whether that worked. Never waits.

        Raises: OSError if nothing can be locked.
        """
        assert self._fd is not None
        try:
            fcntl.flock(self._fd, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError:
            if not self._is_folder:
                raise
            self._lock_file_instead()
            return self.try_lock(kind)
        return True

    def share(self) -> None:
        """Change to a shared lock. Waits for an exclusive holder. Raises: OSError."""
        if self._fd is not None:
            fcntl.flock(self._fd, fcntl.LOCK_SH)

    def close(self) -> None:
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    def _lock_file_instead(self) -> None:
        fd = os.open(self._file, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        self.close()
        self._fd, self._is_folder = fd, False


class StoreLock:
    """Shared by every process that uses a store; exclusive while the store is checked or replaced.

    Any thread; `close` may be called twice.
    """

    def __init__(self, folder: Path) -> None:
        """Raises: OSError if the folder cannot be opened."""
        self._folder = folder
        self._lock = FolderLock(folder, "lock")
        self.is_alone = False

    def take(self, timeout_s: float = LOCK_TIMEOUT_S) -> bool:
        """Take the lock, exclusively if no other process holds it. True: exclusive. Raises: StoreUnusable."""
        deadline = time.monotonic() + timeout_s
        while True:
            if self._lock.try_lock(fcntl.LOCK_EX):
                self.is_alone = True
                return True
            if self._lock.try_lock(fcntl.LOCK_SH):
                return False
            if time.monotonic() >= deadline:
                raise StoreUnusable(
                    f"Store {self._folder} has been checked or replaced by another process for "
                    f"more than {timeout_s:g} s: wait until that process ends, or end it."
                )
            time.sleep(_POLL_S)

    def share(self) -> None:
        """Change to a shared lock, so that other processes may use the store."""
        self._lock.share()
        self.is_alone = False

    def close(self) -> None:
        self._lock.close()
