"""Daemons that are forked from a server which has imported them already.

Importing the daemon takes half of the processor time of a start, and the tests start a hundred. A forked
daemon runs the same command line with its own environment, directory and output. `python -m tests.prefork FD`
is the server, with one thread and no module of the tests; each process that runs tests has one.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import importlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

EVENT = "tests.prefork"  # the audit event of a start
_MAX_REQUEST_BYTES = 1 << 17
# What Litestar and uvicorn import while the application starts: a third of the time of a forked start.
_AT_START = (
    "anyio._backends._asyncio", "litestar.middleware.csrf", "litestar.plugins.pydantic",
    "uvicorn.lifespan.on",
)  # fmt: skip


class ForkedProcess:
    """A forked daemon, with the methods of `Popen` that tests use. May be used from any thread."""

    def __init__(self, channel: socket.socket, stdout: IO[str]) -> None:
        self.stdout = stdout
        self.returncode: int | None = None
        self._channel = channel
        self._lock = threading.Lock()
        self.pid: int = self._receive()["pid"]

    def poll(self) -> int | None:
        return self._look(0)

    def wait(self, timeout: float | None = None) -> int:
        status = self._look(timeout)
        if status is None:
            assert timeout is not None
            raise subprocess.TimeoutExpired(f"forked daemon {self.pid}", timeout)
        return status

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def _look(self, timeout_s: float | None) -> int | None:
        """The exit status, waited for so long."""
        with self._lock:
            if self.returncode is None and select.select([self._channel], [], [], timeout_s)[0]:
                self.returncode = self._receive()["status"]
                self._channel.close()
            return self.returncode

    def _receive(self) -> dict[str, int]:
        told = self._channel.recv(256)
        if not told:
            raise RuntimeError("the process that forks daemons has ended")
        return dict(json.loads(told))


class ForkServer:
    """The server, from the side of the tests."""

    def __init__(self) -> None:
        self._socket, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with other:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.prefork", str(other.fileno())],
                pass_fds=[other.fileno()], cwd=Path(__file__).resolve().parents[1],
            )  # fmt: skip
        atexit.register(self.close)

    def start(
        self, arguments: Sequence[str], env: Mapping[str, str], log: IO[bytes]
    ) -> ForkedProcess:
        """Run `edgeagent ARGUMENTS`, its standard error in `log`."""
        sys.audit(EVENT, None, arguments)
        channel, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        read, write = os.pipe()
        request = {"arguments": list(arguments), "env": dict(env), "cwd": str(Path.cwd())}
        try:
            socket.send_fds(
                self._socket, [json.dumps(request).encode()], [other.fileno(), write, log.fileno()]
            )
        finally:
            other.close()
            os.close(write)
        return ForkedProcess(channel, open(read, encoding="utf-8"))  # noqa: PTH123

    def close(self) -> None:
        self._socket.close()
        self._process.wait()


@functools.cache
def fork_server() -> ForkServer:
    """The server of this process, started when first asked for."""
    return ForkServer()


class _Server:
    """Forks a daemon for each request, and tells how each of them ended."""

    def __init__(self, fd: int) -> None:
        self._requests = socket.socket(fileno=fd)
        self._channels: dict[int, socket.socket] = {}
        self._woken, wake = os.pipe()
        os.set_blocking(wake, False)
        signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        self._wake = wake

    def run(self) -> bool:
        """Until the tests end: False. True in a forked process, which is set up to be a daemon."""
        while True:
            ready = select.select([self._requests.fileno(), self._woken], [], [])[0]
            if self._woken in ready:
                os.read(self._woken, 4096)
                self._tell_ends()
            if self._requests.fileno() in ready:
                data, fds, _, _ = socket.recv_fds(self._requests, _MAX_REQUEST_BYTES, 3)
                if not data:
                    return False
                if self._fork(json.loads(data), *fds):
                    return True

    def _fork(self, request: dict[str, Any], channel_fd: int, out: int, err: int) -> bool:
        channel = socket.socket(fileno=channel_fd)
        if pid := os.fork():
            os.close(out)
            os.close(err)
            channel.send(json.dumps({"pid": pid}).encode())
            self._channels[pid] = channel
            return False
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        os.dup2(out, 1)
        os.dup2(err, 2)
        for fd in (out, err, self._woken, self._wake):
            os.close(fd)
        for open_socket in (self._requests, channel, *self._channels.values()):
            open_socket.close()
        os.chdir(request["cwd"])
        os.environ.clear()
        os.environ.update(request["env"])
        sys.argv = ["edgeagent", *request["arguments"]]
        return True

    def _tell_ends(self) -> None:
        while self._channels:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if not pid:
                break
            with self._channels.pop(pid) as channel:
                told = json.dumps({"status": os.waitstatus_to_exitcode(status)})
                with contextlib.suppress(BrokenPipeError):  # nobody asks any more
                    channel.send(told.encode())


def _main() -> None:
    from edgeagent.cli import serve, serve_daemon
    from edgeagent.cli.main import main
    from edgeagent.worker.heap import without_collections

    with without_collections():
        from edgeagent.daemon import app

        for module in _AT_START:
            importlib.import_module(module)
    assert serve and serve_daemon and app
    assert len(os.listdir("/proc/self/task")) == 1, "a thread does not survive a fork"  # noqa: PTH208
    if _Server(int(sys.argv[1])).run():
        main()


if __name__ == "__main__":
    _main()
