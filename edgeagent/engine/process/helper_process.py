"""Helper processes of a worker, which run chat templates and compile schemas that may never end.

A confined worker cannot start processes. Its fork server (`fork_server.py`) was started before the worker
confined itself; it forks and ends helpers on request. This module is the worker's side.
"""

from __future__ import annotations

import contextlib
import logging
import os
import select
import socket
import struct
import subprocess
import threading
from types import TracebackType
from typing import Literal

from edgeagent.errors import EngineFailed
from edgeagent.worker import spawn
from edgeagent.worker.confinement import resident

logger = logging.getLogger(__name__)

Kind = Literal["template", "trial"]
KINDS: tuple[Kind, ...] = ("template", "trial")
# An operation and its argument: START a kind, END or AWAIT a process. Answered by a process id or a status.
REQUEST, ANSWER = struct.Struct("<BI"), struct.Struct("<i")
START, END, AWAIT = 1, 2, 3


class Helper:
    """One helper process, with the methods of `subprocess.Popen` that are needed. Any thread may end it."""

    def __init__(
        self, server: ForkServer, pid: int, statm: int | None, pipes: tuple[int, int]
    ) -> None:
        self._server = server
        self.pid = pid
        self._statm = statm
        self._status: int | None = None
        self._lock = threading.Lock()
        self.stdin = os.fdopen(pipes[0], "wb")
        self.stdout = os.fdopen(pipes[1], "rb", buffering=0)

    def poll(self) -> int | None:
        """The exit status; None while it runs, which is as long as its output is open."""
        if self._status is not None:
            return self._status
        watch = select.poll()
        watch.register(self.stdout.fileno(), 0)
        return self.wait() if watch.poll(0) else None

    def kill(self) -> None:
        """End it at once. May be called twice."""
        self._finish(END)

    def wait(self) -> int:
        """The exit status, as `Popen.wait` gives it. A helper that does not end within a second is killed."""
        return self._finish(AWAIT)

    def _finish(self, how: int) -> int:
        with self._lock:
            if self._status is None:
                self._status = self._server.finish(how, self.pid)
            return self._status

    def rss_bytes(self) -> int:
        return resident(self._statm) if self._statm is not None else 0

    def close(self) -> None:
        """End the helper and close its pipes. May be called twice."""
        self.kill()
        with contextlib.suppress(BrokenPipeError):
            self.stdin.close()
        self.stdout.close()
        if self._statm is not None:
            os.close(self._statm)
            self._statm = None

    def __enter__(self) -> Helper:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


class ForkServer:
    """The connection to one fork server. Any thread may use it; requests are answered in turn.

    If `is_vital`, this process ends when the server does: a confined worker cannot start another one.
    """

    def __init__(self, *, is_vital: bool) -> None:
        self._lock = threading.Lock()
        self._is_vital = is_vital
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process: subprocess.Popen[bytes] = spawn.start(
                "edgeagent.engine.process.fork_server",
                str(theirs.fileno()),
                str(os.getpid()),
                pass_fds=[theirs.fileno()],
                stdout=subprocess.DEVNULL,
            )

    @property
    def pid(self) -> int:
        return self._process.pid

    def start(self, kind: Kind) -> Helper:
        """Start a helper. Raises: EngineFailed."""
        (for_input, our_end), (their_end, for_output) = os.pipe(), os.pipe()
        our_pipes = (our_end, their_end)
        try:
            pid, statm = self._ask(START, KINDS.index(kind), [for_input, for_output])
        except BaseException:
            for descriptor in our_pipes:
                os.close(descriptor)
            raise
        finally:
            os.close(for_input)
            os.close(for_output)
        return Helper(self, pid, statm, our_pipes)

    def finish(self, how: int, pid: int) -> int:
        """End or await a helper, and return its exit status."""
        return self._ask(how, pid)[0]

    def _ask(
        self, what: int, value: int, descriptors: list[int] | None = None
    ) -> tuple[int, int | None]:
        try:
            with self._lock:
                socket.send_fds(self._socket, [REQUEST.pack(what, value)], descriptors or [])
                data, received, _, _ = socket.recv_fds(self._socket, ANSWER.size, 1)
            (answer,) = ANSWER.unpack(data)
        except (OSError, struct.error) as exc:
            if self._is_vital:
                logger.error("fork_server_lost pid=%s", self.pid)
                os._exit(1)
            raise EngineFailed("The process that starts helpers has ended: try again.") from exc
        return answer, received[0] if received else None

    def close(self) -> None:
        """End the server and with it all helpers. May be called twice."""
        self._socket.close()
        self._process.kill()
        self._process.wait()


_server: ForkServer | None = None
_guard = threading.Lock()


def begin() -> None:
    """Start the fork server of a worker, before the worker confines itself. Does not wait for it."""
    global _server
    _server = ForkServer(is_vital=True)


def start(kind: Kind) -> Helper:
    """Start a helper, by this process's fork server. Raises: EngineFailed."""
    global _server
    with _guard:
        if _server is None:
            _server = ForkServer(is_vital=False)  # a tool or test that is not confined
        server = _server
    return server.start(kind)
