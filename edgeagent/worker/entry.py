"""The start of every worker process, up to its loaded model: `python -m MODULE FD DAEMON_PID`."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Callable
from typing import Any, Protocol

from edgeagent.errors import EdgeAgentError
from edgeagent.worker import log_format, protocol
from edgeagent.worker.channel import Channel


class Worker(Protocol):
    """A loaded model that answers one daemon."""

    def run(self) -> None:
        """Serve until the daemon goes or ends this process."""


# Called with the channel, the configuration, the daemon's process id, and the time on the monotonic clock at
# which it was told to load. Confines the process (`sandbox.enter`) before it reads the model.
Loader = Callable[[Channel, Any, int, float], Worker]


def run(argv: list[str], decode: Callable[[bytes], Any], load: Loader) -> None:
    """Be a worker process: wait for `Load`, load the model, then serve until the daemon goes.

    What `load` raises of `errors.py` is reported as a `LoadFailure`, and the process ends with status 1.
    """
    # Ctrl-C and a service manager's SIGTERM reach the whole process group, but the daemon decides when to
    # stop, so that running answers may end first. The process ends when the socket is closed.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    fd, daemon_pid = int(argv[1]), int(argv[2])
    channel = Channel(fd, decode)
    try:
        (first,) = channel.receive()
    except (EOFError, ConnectionError):  # the daemon ended before it knew what to load
        sys.exit(0)
    started_s = time.monotonic()  # it may have waited long: the daemon hashes a new model first
    assert isinstance(first, protocol.Load), "the daemon's first message is Load"
    log_format.start(first.log_level, "%(levelname)s worker %(name)s %(message)s")
    try:
        worker = load(channel, first.config, daemon_pid, started_s)
    except EdgeAgentError as exc:
        channel.send(protocol.LoadFailure(exc.code, exc.message))
        sys.exit(1)
    worker.run()
