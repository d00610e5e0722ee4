"""`edgeagent top`: what a running daemon does, live in the terminal. Counts and times, never content."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from edgeagent.cli.shared.daemon import base_url
from edgeagent.cli.shared.options import configured, settings_options
from edgeagent.errors import StartFailed


@click.command()
@click.option("--host", metavar="ADDRESS", help="Address of the daemon. Default: 127.0.0.1.")
@click.option("--port", type=click.IntRange(1, 65535), help="Port of the daemon. Default: 8484.")
@click.option("--interval", "interval_s", type=click.FloatRange(0.2, 60), default=1.0,
              show_default=True, metavar="SECONDS", help="Time between two looks.")  # fmt: skip
@settings_options
def top(config: Path | None, interval_s: float, **flags: Any) -> None:
    """Show what the running daemon does, live: models, memory, queues, rates, heat, refusals, last requests.

    Where there are keys, EDGEAGENT_API_KEY needs the scope `metrics`. `q` ends it.
    """
    if not sys.stdout.isatty():
        raise StartFailed(
            "`edgeagent top` draws on a terminal: run it in one, or read GET /metrics."
        )
    try:
        from edgeagent.cli.shared.top_screen import Daemon, Top
    except ImportError as exc:
        raise StartFailed("`edgeagent top` needs textual: pip install 'edgeagent[top]'.") from exc
    settings = configured(config, **flags).settings
    Top(Daemon(base_url(settings)), interval_s).run()
