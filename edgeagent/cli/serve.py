"""`edgeagent serve`: the daemon in the foreground."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import click

from edgeagent.cli.shared.options import settings_options
from edgeagent.daemon import early_worker
from edgeagent.worker.heap import without_collections


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
    with early_worker.waiting() as worker:
        # Imported here: it takes a quarter of a second, in which the worker imports its own modules.
        with without_collections():
            from edgeagent.cli.serve_daemon import run
        run(config, bootstrap_key_file, flags, worker)
