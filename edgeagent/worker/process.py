"""A worker process that was started, before anybody listens to it."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import msgspec

from edgeagent.types.worker_config import WorkerConfig
from edgeagent.worker import frames, protocol, spawn


@dataclass(frozen=True, eq=False)
class WaitingProcess:
    """A process of `module` that was not told yet what to load; `sock` is the daemon's end of the socketpair.

    Its imports take a third of a second, in which the daemon may find out what to load. It ends when `sock`
    is closed.
    """

    module: str
    waits_long: bool
    popen: subprocess.Popen[bytes]
    sock: socket.socket

    def load(self, config: WorkerConfig, log_level: str) -> WorkerProcess:
        """Tell it to load `config`, once. Does not wait for it. Any thread."""
        # The working directory of a worker is "/".
        sent = msgspec.structs.replace(config, path=str(Path(config.path).absolute()))
        # The frame has a few hundred bytes, which an empty socket buffer takes without blocking. If the
        # process has ended already, the client that listens to it will notice.
        with suppress(ConnectionError):
            self.sock.sendall(frames.encode(protocol.Load(sent, log_level)))
        self.sock.setblocking(False)
        return WorkerProcess(config, self.popen, self.sock)

    def close(self) -> None:
        """End a process that was told nothing. May be called twice."""
        _end(self.popen, self.sock)


@dataclass(frozen=True, eq=False)
class WorkerProcess:
    """A process that loads `config`; `sock` is the daemon's end of the socketpair."""

    config: WorkerConfig
    popen: subprocess.Popen[bytes]
    sock: socket.socket

    def close(self) -> None:
        """End a process that no client has taken over. May be called twice."""
        _end(self.popen, self.sock)


def begin(module: str, *, is_silent: bool = False, waits_long: bool = False) -> WaitingProcess:
    """Start `python -m MODULE FD DAEMON_PID`, to be told later what to load. Any thread.

    With `is_silent` the standard error of the process is discarded; `waits_long` is that of `spawn.start`.
    """
    ours, theirs = socket.socketpair()
    # Ctrl-C reaches every process of a terminal. A worker ignores it (`entry`), and inherits here that it is
    # blocked: its first imports would end with a traceback.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        with theirs:
            process = spawn.start(
                module,
                str(theirs.fileno()),
                str(os.getpid()),
                pass_fds=[theirs.fileno()],
                waits_long=waits_long,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL if is_silent else None,
            )
    except BaseException:
        ours.close()
        raise
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    return WaitingProcess(module, waits_long, process, ours)


def launch(
    module: str,
    config: WorkerConfig,
    log_level: str,
    *,
    is_silent: bool = False,
    waits_long: bool = False,
) -> WorkerProcess:
    """Start a process that loads `config`. Does not wait for it. Any thread; the rest as `begin`."""
    return begin(module, is_silent=is_silent, waits_long=waits_long).load(config, log_level)


def _end(process: subprocess.Popen[bytes], sock: socket.socket) -> None:
    sock.close()
    process.kill()
    process.wait()
