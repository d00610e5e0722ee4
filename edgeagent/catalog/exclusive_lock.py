"""One process at a time: a lock on a file, which the kernel frees when the process ends, however it ends."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from edgeagent.errors import EdgeAgentError


@contextmanager
def exclusive_lock(path: Path, busy: EdgeAgentError) -> Iterator[None]:
    """Hold the lock of `path`, and make its folder. Raises: `busy` where another process has it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise busy from None
        yield
