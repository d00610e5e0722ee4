"""A cursor over the bytes of a file header that never reads past a limit or the end of the file.

It reads through a window of 256 KiB rather than a memory map: if another process truncates a mapped file,
reading ends the process with SIGBUS.
"""

from __future__ import annotations

import io
import os
import stat
import struct
from collections.abc import Iterator
from pathlib import Path

from edgeagent.errors import GGUFRefused

WAY_OUT = "install the file again, or convert the model again"
_WINDOW_BYTES = 256 * 1024
_LENGTH = struct.Struct("<Q")


def open_regular(path: Path) -> io.FileIO:
    """Open a file for reading. Non-blocking: a named pipe would wait for a writer for ever."""
    return io.FileIO(path, "r", opener=lambda p, flags: os.open(p, flags | os.O_NONBLOCK))


class ByteCursor:
    """One pass over the first `max_bytes` bytes of one file, on one thread.

    `window` holds the bytes from `window_at` on; `pos` is the next unread one in it.
    """

    def __init__(self, path: Path, file: io.FileIO, max_bytes: int) -> None:
        self.path, self.file, self.max_bytes = path, file, max_bytes
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise self.refused("is not a regular file", "name a .gguf file")
        self.file_bytes = status.st_size
        self.end = min(self.file_bytes, max_bytes)
        self.window = b""
        self.window_at = 0
        self.pos = 0

    @property
    def at(self) -> int:
        """The file offset of the next unread byte."""
        return self.window_at + self.pos

    def refused(self, what: str, way_out: str = WAY_OUT) -> GGUFRefused:
        return GGUFRefused(f"{self.path.name!r} {what}: {way_out}")

    def need(self, n_bytes: int, what: str) -> None:
        """Refuse a count whose bytes cannot all exist, before anything is allocated for it."""
        at = self.at
        if n_bytes <= self.end - at:
            return
        if self.end < self.file_bytes:
            raise self.refused(
                f"has a header of more than {self.max_bytes} bytes, the limit"
                f" (at {what}, byte {at}, {n_bytes} more needed)"
            )
        raise self.refused(
            f"ends at byte {self.file_bytes}, but {what} at byte {at} needs {n_bytes} bytes more",
            "the file was truncated or damaged, install it again",
        )

    def take(self, n_bytes: int, what: str) -> bytes:
        """The next bytes. Raises: GGUFRefused, naming `what`, if they do not exist."""
        self.need(n_bytes, what)
        if len(self.window) - self.pos < n_bytes:
            self._refill(n_bytes, what)
        start, self.pos = self.pos, self.pos + n_bytes
        return self.window[start : self.pos]

    def skip(self, n_bytes: int, what: str) -> None:
        """Skip bytes that must exist."""
        self.need(n_bytes, what)
        self.pos += n_bytes
        if self.pos > len(self.window):
            self.window_at, self.pos, self.window = self.window_at + self.pos, 0, b""

    def _refill(self, n_bytes: int, what: str) -> None:
        self.window_at, self.pos = self.window_at + self.pos, 0
        self.file.seek(self.window_at)
        self.window = self.file.read(max(n_bytes, _WINDOW_BYTES)) or b""
        if len(self.window) < n_bytes:
            raise self.refused(f"shrank while {what} was read", "do not change the file meanwhile")

    def unpack(self, form: struct.Struct, what: str) -> int | float:
        value: int | float = form.unpack(self.take(form.size, what))[0]
        return value

    def count(self, form: str, what: str, bound: int) -> int:
        """A whole number of 0..bound."""
        value = int(self.unpack(struct.Struct(form), what))
        if value > bound:
            raise self.refused(f"says {what} is {value}, the limit is {bound}")
        return value

    def text(self, what: str, bound: int) -> str:
        """A length-prefixed string; invalid UTF-8 is replaced."""
        n_bytes = self.count("<Q", f"the length of {what}", bound)
        return self.take(n_bytes, what).decode("utf-8", "replace")

    def strings(self, n_items: int, what: str, bound: int) -> Iterator[bytes]:
        """`n_items` length-prefixed strings of at most `bound` bytes.

        Equivalent to `count` and `take`, in a fifth of the time: a vocabulary and its merges are most of a
        header, which is read twice before the first answer.
        """
        unpack = _LENGTH.unpack_from
        n_left = n_items
        while n_left:
            window, pos = self.window, self.pos
            # The window may extend past the allowed end.
            readable = min(len(window), self.end - self.window_at)
            last = readable - _LENGTH.size
            while n_left and pos <= last:
                start = pos + _LENGTH.size
                end = start + unpack(window, pos)[0]
                if end > readable or end - start > bound:
                    break
                pos = end
                n_left -= 1
                yield window[start:end]
            self.pos = pos
            if n_left:
                n_left -= 1
                n_bytes = self.count("<Q", f"the length of a string in {what}", bound)
                yield self.take(n_bytes, what)
