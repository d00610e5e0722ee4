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

from edgeagent.api.http.loopback import is_loopback
from edgeagent.cli.shared.options import configured, settings_options
from edgeagent.daemon.heap import use_one_arena
from edgeagent.daemon.instance_lock import InstanceLock
from edgeagent.daemon.preload import Preload
from edgeagent.daemon.sockets import bind, listen
from edgeagent.device.configuration import Configuration
from edgeagent.errors import StartFailed
from edgeagent.worker import log_format

logger = logging.getLogger(__name__)

FIRST_INHERITED_FD = 3


@click.command()
@click.option("--host", metavar="ADDRESS", help="Address to listen on. Default: 127.0.0.1.")
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    help="Port to listen on; 0 picks a free one. Default: 8484.",
)
@settings_options
@click.option(
    "--log-level", type=click.Choice(["debug", "info", "warning", "error"]), help="Default: info."
)
@click.option("--bootstrap-key-file", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE",
              help="If there is no API key yet, make one with every scope and write it to this new file, "
              "readable by this user only.")  # fmt: skip
def serve(config: Path | None, bootstrap_key_file: Path | None, **flags: Any) -> None:
    """Run the daemon: an OpenAI-compatible API on this machine.

    The API is at http://127.0.0.1:8484/v1, its documentation at /schema. Ctrl-C or SIGTERM stops the daemon.
    A socket passed by systemd replaces --host and --port.
    """
    configuration = configured(config, **flags)
    settings = configuration.settings
    log_format.start(settings.log_level)
    use_one_arena()
    # Taken before the store is opened or a model loaded, kept until this process ends.
    instance = InstanceLock(settings.state_dir, must_hold=settings.store.enabled)
    # Bind first: a used address is an error before a model is loaded.
    inherited = inherited_sockets()
    try:
        sockets = inherited or [bind(settings.http.host, settings.http.port)]
    except StartFailed:
        if is_loopback(settings.http.host):
            raise
        sockets = []  # an address that others reach is checked for keys first
    preload = Preload(configuration) if settings.models.preload and sockets else None
    try:
        _serve(configuration, sockets, addresses(inherited), preload, bootstrap_key_file)
    finally:
        if preload is not None:
            preload.close()
        for sock in sockets:
            sock.close()
        instance.close()


def _serve(
    configuration: Configuration,
    sockets: list[socket.socket],
    inherited: list[str] | None,
    preload: Preload | None,
    bootstrap_key_file: Path | None,
) -> None:
    # Imported here: it takes a second, during which the worker loads its model.
    from edgeagent.daemon.app import Daemon

    daemon = Daemon(configuration, inherited, preload, bootstrap_key_file=bootstrap_key_file)
    settings = configuration.settings
    for sock in sockets or [bind(settings.http.host, settings.http.port)]:
        if inherited is None:
            listen(sock)
        click.echo(f"edgeagent listens on {_shown(sock)} (API under /v1, documentation at /schema)")
    sys.stdout.flush()
    asyncio.run(daemon.serve(sockets))


def inherited_sockets() -> list[socket.socket]:
    """Listening sockets that systemd opened for this process (sd_listen_fds(3)); none without systemd.

    Raises: StartFailed for a descriptor that is not a socket.
    """
    from edgeagent.environment import listen_fds

    sockets = []
    for fd in range(FIRST_INHERITED_FD, FIRST_INHERITED_FD + listen_fds(os.getpid())):
        try:
            sock = socket.socket(fileno=fd)
        except OSError as exc:
            raise StartFailed(
                f"LISTEN_FDS names descriptor {fd}, which is not a socket ({exc.strerror}): unset it, or "
                "let systemd set it."
            ) from exc
        sockets.append(sock)
    return sockets


def addresses(sockets: list[socket.socket]) -> list[str] | None:
    """The addresses of these sockets; None if there are none. A Unix socket counts as loopback."""
    if not sockets:
        return None
    return [
        sock.getsockname()[0] if sock.family in (socket.AF_INET, socket.AF_INET6) else "localhost"
        for sock in sockets
    ]


def _shown(sock: socket.socket) -> str:
    if sock.family not in (socket.AF_INET, socket.AF_INET6):
        return f"unix:{sock.getsockname()}"
    host, port = sock.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
