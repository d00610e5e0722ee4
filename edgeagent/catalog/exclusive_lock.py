"""One process at a time: a lock on a file, which the kernel frees when the process ends, however it ends."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from edgeagent.errors import EdgeAgentError


@contextmanager
def exclusive_lock(path: Path, busy: EdgeAgentError) -> Iterator[None]:
    """Hold the lock of `path`, and make its folder. Raises: `busy` where another process has it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a", opener=_unblocked) as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise busy from None
        yield


def _unblocked(path: str, flags: int) -> int:
    """Opening a FIFO for writing would wait for its reader."""
    return os.open(path, flags | os.O_NONBLOCK, 0o666)
