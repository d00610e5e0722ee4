"""The process of an engine worker, told what to load and not yet listened to."""

from __future__ import annotations

import os
import socket
import subprocess
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import msgspec

from edgeagent.engine import protocol
from edgeagent.types import EngineConfig
from edgeagent.worker import spawn


@dataclass(frozen=True, eq=False)
class Begun:
    """A worker that loads `config`; `sock` is our end of the socket to it."""

    config: EngineConfig
    process: subprocess.Popen[bytes]
    sock: socket.socket

    def close(self) -> None:
        """End one that nobody wants. May be called twice."""
        self.sock.close()
        self.process.kill()
        self.process.wait()


def begin(config: EngineConfig, log_level: str, *, is_silent: bool = False) -> Begun:
    """Start a worker and tell it what to load. Does not wait for it. Any thread. With `is_silent`
    nothing that it or llama.cpp writes to standard error is seen."""
    ours, theirs = socket.socketpair()
    with theirs:
        process = spawn.start(
            "edgeagent.engine.process.worker",
            str(theirs.fileno()),
            log_level,
            str(os.getpid()),
            pass_fds=[theirs.fileno()],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL if is_silent else None,
        )
    # A worker stands in another directory.
    told = msgspec.structs.replace(config, path=str(Path(config.path).absolute()))
    # Some hundred bytes: a new socket takes them. That a worker has ended already is for its listener to see.
    with suppress(ConnectionError):
        ours.sendall(protocol.encode(protocol.Load(told)))
    ours.setblocking(False)
    return Begun(config, process, ours)
