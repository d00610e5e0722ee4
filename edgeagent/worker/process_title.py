"""Changes the command line that `ps` shows for a forked process.

Linux reads the command line from the memory of the process, where the arguments were stored at its start.
Source: proc(5), fields `arg_start` and `arg_end` of /proc/pid/stat.
"""

from __future__ import annotations

import ctypes
from pathlib import Path


class ProcessTitle:
    """The memory of this process's command line. Create it before the process confines itself; forked
    children may use it. If the address cannot be found, nothing is replaced."""

    def __init__(self) -> None:
        try:
            # The second field, a name in brackets, may hold spaces.
            fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
            self._start, end = int(fields[45]), int(fields[46])
        except (OSError, ValueError, IndexError):
            self._start = end = 0
        self._size = max(0, end - self._start)

    def replace(self, old: str, new: str) -> None:
        """Replace `old` in the command line by `new`, which must not be longer."""
        if not self._start or len(new.encode()) > len(old.encode()):
            return
        line = ctypes.string_at(self._start, self._size)
        changed = line.replace(old.encode(), new.encode()).ljust(self._size, b"\0")
        ctypes.memmove(self._start, changed, self._size)
