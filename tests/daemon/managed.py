"""A daemon started as systemd starts it: sockets, notification socket, watchdog and credentials."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

from tests.conftest import clean_environment

INHERIT = """
import fcntl, os, sys
n = int(sys.argv[1])
given = [fcntl.fcntl(int(fd), fcntl.F_DUPFD, 100) for fd in sys.argv[2:2 + n]]
for place, fd in enumerate(given, 3):
    os.dup2(fd, place, inheritable=True)
    os.close(fd)
os.environ["LISTEN_FDS"] = str(n)
os.environ["LISTEN_PID"] = os.environ["WATCHDOG_PID"] = str(os.getpid())
os.execv(sys.executable, [sys.executable, "-m", "edgeagent", "serve", *sys.argv[2 + n:]])
"""


def start(
    sockets: Iterable[socket.socket], state_dir: Path, **variables: str
) -> subprocess.Popen[str]:
    """A daemon without a model that is handed these sockets and variables."""
    fds = [sock.fileno() for sock in sockets]
    config = state_dir / "edgeagent.toml"
    config.write_text("models.preload = false\n")
    arguments = ["--state-dir", str(state_dir), "--config", str(config)]
    return subprocess.Popen(
        [sys.executable, "-c", INHERIT, str(len(fds)), *map(str, fds), *arguments],
        pass_fds=fds, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env=clean_environment() | variables,
    )  # fmt: skip
