"""Where the files of a store lie, and the lock that says who uses them."""

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
    """The names inside one store folder. Nothing of it is the key (store/secret.py)."""

    folder: Path

    @property
    def database(self) -> Path:
        return self.folder / "edgeagent.db"

    @property
    def seal(self) -> Path:
        """Tells a wrong key from a damaged file, and how the key is derived."""
        return self.folder / "seal.json"

    @property
    def lock(self) -> Path:
        return self.folder / "lock"

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
    def ballast(self) -> Path:
        """Room for what must be written when others have filled the disk (store/ballast.py)."""
        return self.folder / "ballast"

    @property
    def erased(self) -> Path:
        """Touched by an erasure from outside the daemon, whose caches are to forget then."""
        return self.folder / "erased"

    @property
    def prefixes(self) -> Path:
        """What models have computed of dialogues (store/prefixes.py)."""
        return self.folder / "prefixes"

    @property
    def backups(self) -> Path:
        return self.folder / "backups"

    @property
    def quarantine(self) -> Path:
        return self.folder / "quarantine"

    def make(self) -> None:
        """Make the folders, readable by their owner only. Raises: OSError."""
        for folder in (self.folder, self.backups, self.quarantine, self.prefixes):
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)


def beside(database: Path) -> tuple[Path, Path]:
    """The write-ahead log and its index, which belong to a database file."""
    return Path(f"{database}-wal"), Path(f"{database}-shm")


class StoreLock:
    """Shared by every process that uses a store; held alone while the store is checked or replaced.

    The kernel releases it with the process, however that ends. Any thread; `close` may be repeated.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._fd: int | None = os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        self.is_alone = False

    def take(self, timeout_s: float = LOCK_TIMEOUT_S) -> bool:
        """Take the lock, alone if nobody else has it. True: alone. Raises: StoreUnusable."""
        deadline = time.monotonic() + timeout_s
        while True:
            if self._try(fcntl.LOCK_EX):
                self.is_alone = True
                return True
            if self._try(fcntl.LOCK_SH):
                return False
            if time.monotonic() >= deadline:
                raise StoreUnusable(
                    f"Store {self._path.parent} is being checked or replaced by another process for "
                    f"more than {timeout_s:g} s: wait until it ends, or end it."
                )
            time.sleep(_POLL_S)

    def share(self) -> None:
        """Let other processes in."""
        if self._fd is not None:
            fcntl.flock(self._fd, fcntl.LOCK_SH)
        self.is_alone = False

    def close(self) -> None:
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    def _try(self, kind: int) -> bool:
        assert self._fd is not None
        try:
            fcntl.flock(self._fd, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True
