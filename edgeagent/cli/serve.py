"""`edgeagent serve`: the daemon in the foreground."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from edgeagent.cli.shared.options import configured, settings_options
from edgeagent.daemon.instance_lock import InstanceLock
from edgeagent.daemon.notify import ServiceManager
from edgeagent.daemon.preload import Preload
from edgeagent.daemon.sockets import addresses, bind, inherited_sockets, listen, shown
from edgeagent.device.configuration import Configuration
from edgeagent.errors import StartFailed
from edgeagent.settings import Settings
from edgeagent.settings.environment import listen_fds, notify_socket, watchdog_s
from edgeagent.types.loopback import is_loopback
from edgeagent.worker import log_format
from edgeagent.worker.heap import map_large_blocks, use_one_arena, without_collections
from edgeagent.worker.loop_core import loop_core
from edgeagent.worker.time_slice import shorten_time_slice

logger = logging.getLogger(__name__)


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
    if not os.isatty(0):  # in a terminal it still means that the terminal is gone
        signal.signal(signal.SIGHUP, signal.SIG_IGN)  # until the daemon listens to it
    configuration = configured(config, **flags)
    settings = configuration.settings
    log_format.start(settings.log_level)
    use_one_arena()
    map_large_blocks()
    # Taken before the store is opened or a model loaded, kept until this process ends.
    instance = InstanceLock(settings.state_dir, must_hold=settings.store.enabled)
    # Bind first: a used address is an error before a model is loaded.
    inherited = inherited_sockets(listen_fds(os.getpid()))
    try:
        sockets = inherited or [bind(settings.http.host, settings.http.port)]
    except StartFailed:
        if is_loopback(settings.http.host):
            raise
        sockets = []  # an address that others reach is checked for keys first
    preload = Preload(configuration) if settings.models.preload and sockets else None
    try:
        _serve(
            configuration,
            sockets,
            addresses(inherited),
            preload,
            bootstrap_key_file,
            None if os.isatty(0) else lambda: configuration.read_again(flags=flags, config=config),
        )
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
    read: Callable[[], Settings] | None,
) -> None:
    # Imported here: it takes a second, during which the worker loads its model.
    with without_collections():
        from edgeagent.daemon.app import Daemon

    manager = ServiceManager(notify_socket(), watchdog_s(os.getpid()))
    daemon = Daemon(
        configuration, inherited, preload, bootstrap_key_file=bootstrap_key_file, manager=manager
    )
    settings = configuration.settings
    for sock in sockets or [bind(settings.http.host, settings.http.port)]:
        if inherited is None:
            listen(sock)
        click.echo(f"edgeagent listens on {shown(sock)} (API under /v1, documentation at /schema)")
    sys.stdout.flush()
    shorten_time_slice()
    loop_core.is_on = settings.governor.enabled
    asyncio.run(daemon.serve(sockets, read))
