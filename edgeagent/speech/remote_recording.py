"""A recording that stays with the daemon and is read part by part, as the file that FFmpeg reads.

The memory of a worker then does not depend on the length of the recording. Nothing here blocks the daemon,
and no file is opened: the daemon answers each question with a part, or ends the request.
"""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Callable

from edgeagent.errors import EngineFailed
from edgeagent.speech.protocol import PART_BYTES

FETCH_TIMEOUT_S = 60.0
# Parts that are kept: containers with their index at the end are read from two places in turn.
MAX_PARTS = 4


class RemoteRecording:
    """`fetch(offset, n_bytes)` asks for a part, which arrives by `receive` on another thread.

    All but `receive` and `abandon` are for the main thread.
    """

    def __init__(
        self,
        n_bytes: int,
        fetch: Callable[[int, int], None],
        *,
        timeout_s: float = FETCH_TIMEOUT_S,
    ) -> None:
        self._n_bytes = n_bytes
        self._fetch = fetch
        self._timeout_s = timeout_s
        self._at = 0
        self._parts: OrderedDict[int, bytes] = OrderedDict()
        self._arrived: tuple[int, bytes] | None = None
        self._is_abandoned = False
        self._changed = threading.Condition()

    def __len__(self) -> int:
        return self._n_bytes

    def head(self, n_bytes: int) -> bytes:
        """The first bytes; reading goes on at the beginning."""
        self._at = 0
        found = b""
        while len(found) < n_bytes and (part := self.read(n_bytes - len(found))):
            found += part
        self._at = 0
        return found

    # ---- what FFmpeg uses

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._n_bytes}[whence]
        self._at = max(0, start + offset)
        return self._at

    def read(self, n_bytes: int = -1) -> bytes:
        """Up to `n_bytes`; fewer where a part ends, none at the end of the recording.

        Raises: EngineFailed when the part does not come.
        """
        if n_bytes < 0:
            n_bytes = self._n_bytes
        if self._at >= self._n_bytes or not n_bytes:
            return b""
        start, part = self._part()
        found = part[self._at - start : self._at - start + n_bytes]
        self._at += len(found)
        return found

    def _part(self) -> tuple[int, bytes]:
        """A part that holds the byte at the current place."""
        for start, part in self._parts.items():
            if start <= self._at < start + len(part):
                self._parts.move_to_end(start)
                return start, part
        part = self._fetched(self._at)
        self._parts[self._at] = part
        if len(self._parts) > MAX_PARTS:
            self._parts.popitem(last=False)
        return self._at, part

    def _fetched(self, offset: int) -> bytes:
        self._fetch(offset, PART_BYTES)
        with self._changed:
            has_come = self._changed.wait_for(
                lambda: self._is_abandoned or self._has_come(offset), self._timeout_s
            )
            arrived, self._arrived = self._arrived, None
            if self._is_abandoned or not has_come or arrived is None or not arrived[1]:
                raise EngineFailed(
                    f"The recording could not be read on from byte {offset}: send the request again."
                )
            return arrived[1]

    def _has_come(self, offset: int) -> bool:
        return self._arrived is not None and self._arrived[0] == offset

    # ---- receiver thread

    def receive(self, offset: int, data: bytes) -> None:
        """A part has come."""
        with self._changed:
            self._arrived = offset, data
            self._changed.notify_all()

    def abandon(self) -> None:
        """Let a reader fail that waits, now or later."""
        with self._changed:
            self._is_abandoned = True
            self._changed.notify_all()
