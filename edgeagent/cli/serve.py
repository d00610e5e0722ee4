"""`edgeagent serve`: the daemon in the foreground."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import sys
from pathlib import Path
from typing import Any

import click

from edgeagent.app import Daemon
from edgeagent.api.server import bind
from edgeagent.cli.options import resolved, settings_options

logger = logging.getLogger(__name__)

FIRST_INHERITED_FD = 3


@click.command()
@click.option("--host", metavar="ADDRESS", help="Address to listen on. Default: 127.0.0.1.")
@click.option("--port", type=click.IntRange(0, 65535), help="Port to listen on; 0 picks a free one. Default: 8484.")
@settings_options
@click.option("--log-level", type=click.Choice(["debug", "info", "warning", "error"]), help="Default: info.")
def serve(config: Path | None, **flags: Any) -> None:
    """Run the daemon: an OpenAI-compatible API on this machine.

    The API is at http://127.0.0.1:8484/v1, its documentation at /schema. Ctrl-C or SIGTERM stops it.
    A socket handed over by systemd is used instead of --host and --port.
    """
    settings = resolved(config, **flags).settings
    logging.basicConfig(
        level=settings.log_level.upper(), format="%(asctime)s %(levelname)s %(name)s %(message)s", stream=sys.stderr
    )
    daemon = Daemon(settings)
    sockets = inherited_sockets() or [bind(settings.host, settings.port)]
    for sock in sockets:
        host, port = sock.getsockname()[:2]
        shown = f"[{host}]" if ":" in host else host
        click.echo(f"edgeagent listens on http://{shown}:{port} (API under /v1, documentation at /schema)")
    sys.stdout.flush()
    asyncio.run(daemon.serve(sockets))


def inherited_sockets() -> list[socket.socket]:
    """Listening sockets that systemd opened for this process (sd_listen_fds(3)); none without it."""
    from edgeagent.settings import listen_fds

    count = listen_fds(os.getpid())
    return [socket.socket(fileno=FIRST_INHERITED_FD + i) for i in range(count)]
