"""What `ps` shows of a process that was forked and became something else.

Linux reads a process's command line out of the process's own memory, where the arguments were put when it
started. Source: proc(5), fields `arg_start` and `arg_end` of /proc/pid/stat.
"""

from __future__ import annotations

import ctypes
from pathlib import Path


class ProcessTitle:
    """Where this process's command line lies. Made before the process confines itself; forked children
    may use it. Where it cannot be found out, nothing is replaced."""

    def __init__(self) -> None:
        try:
            # The second field, a name in brackets, may hold spaces.
            fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
            self._start, end = int(fields[45]), int(fields[46])
        except (OSError, ValueError, IndexError):
            self._start = end = 0
        self._size = max(0, end - self._start)

    def replace(self, old: str, new: str) -> None:
        """Put `new`, which is no longer, in the place of `old` in the command line."""
        if not self._start or len(new.encode()) > len(old.encode()):
            return
        line = ctypes.string_at(self._start, self._size)
        changed = line.replace(old.encode(), new.encode()).ljust(self._size, b"\0")
        ctypes.memmove(self._start, changed, self._size)
