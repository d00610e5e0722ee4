"""A worker process that was started and told what to load, before anybody listens to it."""

from __future__ import annotations

import os
import socket
import subprocess
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import msgspec

from edgeagent.types.worker_config import WorkerConfig
from edgeagent.worker import frames, protocol, spawn


@dataclass(frozen=True, eq=False)
class WorkerProcess:
    """A process that loads `config`; `sock` is the daemon's end of the socketpair."""

    config: WorkerConfig
    popen: subprocess.Popen[bytes]
    sock: socket.socket

    def close(self) -> None:
        """End a process that no client has taken over. May be called twice."""
        self.sock.close()
        self.popen.kill()
        self.popen.wait()


def launch(
    module: str,
    config: WorkerConfig,
    log_level: str,
    *,
    is_silent: bool = False,
    waits_long: bool = False,
) -> WorkerProcess:
    """Start `python -m MODULE FD LOG_LEVEL DAEMON_PID` and send it `Load(config)`. Does not wait for it.

    May be called on any thread. With `is_silent` the standard error of the process is discarded;
    `waits_long` is that of `spawn.start`.
    """
    ours, theirs = socket.socketpair()
    with theirs:
        process = spawn.start(
            module,
            str(theirs.fileno()),
            log_level,
            str(os.getpid()),
            pass_fds=[theirs.fileno()],
            waits_long=waits_long,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL if is_silent else None,
        )
    # The working directory of a worker is "/".
    sent = msgspec.structs.replace(config, path=str(Path(config.path).absolute()))
    # The frame has a few hundred bytes, which an empty socket buffer takes without blocking. If the process
    # has ended already, the client that listens to it will notice.
    with suppress(ConnectionError):
        ours.sendall(frames.encode(protocol.Load(sent)))
    ours.setblocking(False)
    return WorkerProcess(config, process, ours)
