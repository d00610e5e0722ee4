"""Runs the daemon in this process, for `edgeagent serve`: settings, locks and sockets, then its parts."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from edgeagent.cli.shared.options import configured
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
from edgeagent.worker.process import WaitingProcess
from edgeagent.worker.time_slice import shorten_time_slice

logger = logging.getLogger(__name__)


def run(
    config: Path | None,
    bootstrap_key_file: Path | None,
    flags: dict[str, Any],
    worker: WaitingProcess | None,
) -> None:
    """Serve until a signal ends the daemon. `worker` waits for a model, and may get the default one."""
    worker_pid = worker.popen.pid if worker is not None else None
    configuration = configured(config, worker_pid=worker_pid, **flags)
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
    is_preloading = settings.models.preload and bool(sockets)
    if worker is not None and not is_preloading:
        worker.close()
    preload = Preload(configuration, worker) if is_preloading else None
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
