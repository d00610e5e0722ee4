"""The process of an engine worker, told what to load and not yet listened to."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass

from edgeagent.engine import protocol
from edgeagent.types import EngineConfig


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


def begin(config: EngineConfig, log_level: str) -> Begun:
    """Start a worker and tell it what to load. Does not wait for it. Any thread."""
    ours, theirs = socket.socketpair()
    with theirs:
        command = [sys.executable, "-m", "edgeagent.engine.worker"]
        process = subprocess.Popen(
            [*command, str(theirs.fileno()), log_level, str(os.getpid())],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
        )
    # Some hundred bytes: a new socket takes them. That a worker has ended already is for its listener to see.
    with suppress(ConnectionError):
        ours.sendall(protocol.encode(protocol.Load(config)))
    ours.setblocking(False)
    return Begun(config, process, ours)
