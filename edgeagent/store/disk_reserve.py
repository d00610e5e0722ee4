"""Disk space allocated in advance for essential writes on a full disk.

Ordinary writes leave a reserve free (`store.reserve_bytes`), but other programs may use that space. This
file occupies it: it is shrunk in steps when opening the store, ending a key, erasing, or writing entries of
the audit and the journal needs room, and grows back when there is room again.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

LEAST_BYTES = 256 << 10  # enough to open a store
MOST_BYTES = 8 << 20  # enough for an erasure's write-ahead log, which is truncated at this size
PIECE_BYTES = 128 << 10


class DiskReserve:
    """One reserve file. Any thread and process; if two shrink it at once, at worst the space of one step is
    freed once instead of twice."""

    def __init__(self, path: Path, reserve_bytes: int = 0) -> None:
        self._path = path
        self.n_bytes = max(LEAST_BYTES, min(MOST_BYTES, reserve_bytes // 4))
        self._is_whole = False

    def refill(self, spare_bytes: int = 0) -> None:
        """Grow the file to its full size if more than `spare_bytes` stay free on the disk."""
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

    def release(self, n_bytes: int = PIECE_BYTES) -> bool:
        """Free a part of the reserved space. True: there was some."""
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
