"""One daemon for one state directory.

Two would mark each other's answers as failed, and sweep, back up and cache against each other. Command
line tools open the data of a running daemon and do not take this lock.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
from pathlib import Path

from edgeagent.errors import StartFailed

LOCK = "daemon.lock"


class Instance:
    """Held for the life of the daemon; the kernel releases it with the process, however that ends.

    Children do not inherit it. `close` may be called twice.
    """

    def __init__(self, state_dir: Path, *, must_hold: bool = True) -> None:
        """Raises: StartFailed where another daemon holds it; and where it cannot be made, if it must."""
        self._fd: int | None = None
        path = state_dir / LOCK
        try:
            state_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
            fd = os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        except OSError as exc:
            if must_hold:
                raise StartFailed(
                    f"State directory {state_dir} cannot be used: {_why(state_dir, exc)}, or choose "
                    "another --state-dir."
                ) from exc
            return
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as exc:
            pid = _pid(fd)
            os.close(fd)
            if exc.errno not in (errno.EWOULDBLOCK, errno.EACCES):
                raise StartFailed(
                    f"File {path} cannot be locked: {exc.strerror}. Put the state directory on a local "
                    "disk."
                ) from exc
            raise StartFailed(
                f"Another daemon{pid} uses state directory {state_dir}, one is the most: stop it, or "
                "give this one its own --state-dir."
            ) from exc
        self._fd = fd
        with contextlib.suppress(OSError):  # for the message above; a full disk keeps nobody out
            os.truncate(fd, 0)
            os.write(fd, f"{os.getpid()}\n".encode())

    def close(self) -> None:
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None


def _pid(fd: int) -> str:
    with contextlib.suppress(OSError, ValueError):
        return f" (pid {int(os.pread(fd, 20, 0))})"
    return ""


def _why(state_dir: Path, exc: OSError) -> str:
    """What is wrong with a directory, and what helps."""
    if exc.errno in (errno.EEXIST, errno.ENOTDIR):
        path = next((p for p in (state_dir, *state_dir.parents) if p.exists()), state_dir)
        return f"{path} is a file and no directory. Move it away"
    if exc.errno in (errno.ENOSPC, errno.EDQUOT):
        return "its disk is full. Make room"
    if exc.errno == errno.EROFS:
        return "its disk is mounted read-only. Remount it"
    return f"{exc.strerror}. Let this user enter and write it"
