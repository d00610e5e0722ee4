"""The lock that allows one daemon per state directory.

Two daemons would mark each other's answers as failed and run retention, backups and caches against each
other. Command-line tools open the data of a running daemon without this lock.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
from pathlib import Path

from edgeagent.errors import StartFailed
from edgeagent.store.database_files import FolderLock

PID_FILE = "daemon.lock"


class InstanceLock:
    """Held while the daemon lives; the kernel releases it when the process ends, in any way.

    `close` may be called twice.
    """

    def __init__(self, state_dir: Path, *, must_hold: bool = True) -> None:
        """Raises: StartFailed if another daemon holds the lock, or, with `must_hold`, if it cannot be
        taken."""
        self._lock: FolderLock | None = None
        path = state_dir / PID_FILE
        try:
            state_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._lock = FolderLock(state_dir, PID_FILE)
            is_first = self._lock.try_lock(fcntl.LOCK_EX)
            if is_first:
                _write_pid(path)
        except OSError as exc:
            if must_hold:
                self.close()
                raise StartFailed(
                    f"State directory {state_dir} cannot be used: {_why(state_dir, exc)}, or choose "
                    "another --state-dir."
                ) from exc
            return
        if not is_first:
            self.close()
            raise StartFailed(
                f"State directory {state_dir} is in use by another daemon{_pid(path)}: stop that daemon, "
                "or give this one its own --state-dir."
            )

    def close(self) -> None:
        if self._lock is not None:
            self._lock.close()
            self._lock = None


def _write_pid(path: Path) -> None:
    """Write the pid for the error message of a second daemon. Raises: OSError if the directory is
    read-only."""
    try:
        fd = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as exc:
        if exc.errno in (errno.EISDIR, errno.ELOOP):  # not our file; the pid is optional
            return
        raise
    with contextlib.suppress(OSError):  # on a full disk the lock alone suffices
        os.truncate(fd, 0)
        os.write(fd, f"{os.getpid()}\n".encode())
    os.close(fd)


def _pid(path: Path) -> str:
    with contextlib.suppress(OSError, ValueError):
        return f" (pid {int(path.read_bytes()[:20])})"
    return ""


def _why(state_dir: Path, exc: OSError) -> str:
    """The reason why a directory cannot be used, and the way out."""
    if exc.errno in (errno.EEXIST, errno.ENOTDIR):
        path = next((p for p in (state_dir, *state_dir.parents) if p.exists()), state_dir)
        return f"{path} is a file, not a directory. Move it away"
    if exc.errno in (errno.ENOSPC, errno.EDQUOT):
        return "its disk is full. Make room"
    if exc.errno == errno.EROFS:
        return "its disk is mounted read-only. Remount it"
    return f"{exc.strerror}. Give this user access to it"
