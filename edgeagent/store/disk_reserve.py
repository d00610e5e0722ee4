"""Room on the disk that is taken beforehand, for what must be written when others have filled it.

Ordinary writes leave a reserve free (`store_reserve_bytes`), but nothing keeps another program from using
that. This file does: it is made small, a piece at a time, for opening the store, ending a key, erasing,
and for their entries in the audit and the journal, and is made whole again when there is room.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

LEAST_BYTES = 256 << 10  # what opening needs
MOST_BYTES = 8 << 20  # an erasure's log, which is emptied at this size
PIECE_BYTES = 128 << 10


class DiskReserve:
    """One file. Any thread and process: what two of them give at once is given once too often at worst."""

    def __init__(self, path: Path, reserve_bytes: int = 0) -> None:
        self._path = path
        self.n_bytes = max(LEAST_BYTES, min(MOST_BYTES, reserve_bytes // 4))
        self._is_whole = False

    def take(self, spare_bytes: int = 0) -> None:
        """Make the file whole, if more than `spare_bytes` stay free beside it."""
        if self._is_whole:
            return
        try:
            size = self._path.stat().st_size if self._path.exists() else 0
            if size < self.n_bytes:
                if shutil.disk_usage(self._path.parent).free < self.n_bytes - size + spare_bytes:
                    return
                self._grow(size)
            self._is_whole = True
        except OSError:
            return

    def give(self, n_bytes: int = PIECE_BYTES) -> bool:
        """Give a piece of the room back to the disk. True: there was some."""
        self._is_whole = False
        try:
            size = self._path.stat().st_size
            if size == 0:
                return False
            with self._path.open("rb+") as file:
                file.truncate(max(0, size - n_bytes))
                os.fsync(file.fileno())
        except OSError:
            return False
        return True

    def _grow(self, size: int) -> None:
        fd = os.open(self._path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        try:
            os.posix_fallocate(fd, 0, self.n_bytes)
        except OSError:
            os.ftruncate(fd, size)
            raise
        finally:
            os.close(fd)
