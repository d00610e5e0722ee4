"""Reading the files of a database beside SQLite's own connections in the same process.

POSIX locks belong to the process: closing any descriptor of a file drops every lock that the process has on
it, SQLite's among them. The next process that closes the database then takes itself for the last one and
deletes the write-ahead log, and whatever is committed to the deleted log is lost. So a descriptor that was
opened here stays open, one for each file. Source: sqlite.org/howtocorrupt.html, 2.2.
"""

from __future__ import annotations

import io
import os
import threading
from pathlib import Path

_kept: dict[tuple[int, int], int] = {}  # descriptors by device and inode
_lock = threading.Lock()


def open_raw(path: Path) -> io.BufferedReader:
    """The file from its beginning, to be read. Closing it closes no descriptor. Any thread."""
    return io.BufferedReader(_KeptFile(_descriptor(path)), 1 << 16)


def _descriptor(path: Path) -> int:
    with _lock:
        for file, fd in list(_kept.items()):
            if os.fstat(fd).st_nlink == 0:  # deleted: nobody can lock it any more
                os.close(_kept.pop(file))
        found = path.stat()
        known = _kept.get((found.st_dev, found.st_ino))
        if known is not None:
            return known
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        opened = os.fstat(fd)
        # Another file may have got the name in between; if it is known, this descriptor stays open too.
        return _kept.setdefault((opened.st_dev, opened.st_ino), fd)


class _KeptFile(io.RawIOBase):
    """Reads a descriptor at a position of its own. One thread."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._at}.get(whence, os.fstat(self._fd).st_size)
        self._at = base + offset
        return self._at

    def readinto(self, buffer: object) -> int:
        n_bytes = os.preadv(self._fd, [buffer], self._at)  # type: ignore[list-item]
        self._at += n_bytes
        return n_bytes
