"""New recordings of a folder, each once it is complete."""

from __future__ import annotations

import asyncio
import os
import stat
from collections.abc import AsyncIterator, Callable
from pathlib import Path

POLL_S = 1.0
# Names that programs give to files that they are still writing.
UNFINISHED = (".part", ".partial", ".tmp", ".crdownload", ".filepart")
ENDINGS = (
    ".flac", ".m4a", ".mp3", ".mp4", ".mpeg", ".mpga", ".oga", ".ogg", ".opus", ".wav", ".webm",
)  # fmt: skip

# Size and time of change of a file.
State = tuple[int, int]


class FolderWatch:
    """A file is complete once two looks in a row find it unchanged, and nobody's temporary file."""

    def __init__(self, folder: Path, is_done: Callable[[Path], bool]) -> None:
        """`is_done`: whether there is a transcript that is newer than the file."""
        self._folder = folder
        self._is_done = is_done
        self._seen: dict[Path, State] = {}
        self._given: dict[Path, State] = {}

    def look(self) -> list[Path]:
        """The files that became complete since the last look, oldest first. Raises: OSError without the
        folder."""
        now = self._states()
        found = [
            path
            for path, state in now.items()
            if self._seen.get(path) == state and self._given.get(path) != state
        ]
        self._seen = now
        self._given = {path: state for path, state in self._given.items() if path in now}
        self._given |= {path: now[path] for path in found}
        fresh = [path for path in found if not self._is_done(path)]
        return sorted(fresh, key=lambda path: (now[path][1], path.name))

    def _states(self) -> dict[Path, State]:
        found = {}
        for entry in os.scandir(self._folder):
            if not is_recording(entry.name):
                continue
            try:
                status = entry.stat()
            except OSError:  # gone since the listing
                continue
            if stat.S_ISREG(status.st_mode) and status.st_size:
                found[Path(entry.path)] = (status.st_size, status.st_mtime_ns)
        return found

    async def files(self) -> AsyncIterator[Path]:
        """Complete files for ever, as they come. Raises: OSError."""
        while True:
            for path in await asyncio.to_thread(self.look):
                yield path
            await asyncio.sleep(POLL_S)


def is_recording(name: str) -> bool:
    lower = name.lower()
    return not name.startswith(".") and lower.endswith(ENDINGS) and not lower.endswith(UNFINISHED)
