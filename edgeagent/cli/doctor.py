"""`edgeagent doctor`: every setting and where it came from, and whether the parts are in order."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from edgeagent import __version__
from edgeagent.cli.options import resolved, settings_options
from edgeagent.errors import EdgeAgentError
from edgeagent.settings import Resolved

LIBRARIES = (
    "llama-cpp-python",
    "litestar",
    "uvicorn",
    "h11",
    "msgspec",
    "pydantic",
    "numpy",
    "jinja2",
)


@click.command()
@settings_options
def doctor(config: Path | None, **flags: Any) -> None:
    """Show the settings with their origins, and check what the daemon needs."""
    state = resolved(config, **flags)
    console = Console()
    console.print(
        f"edgeagent {__version__}, Python {platform.python_version()}, {platform.platform()}"
    )
    console.print(f"usable cores: {len(os.sched_getaffinity(0))}")
    console.print(_settings_table(state))
    console.print(_libraries_table())
    problems = list(_problems(state))
    for problem in problems:
        console.print(f"[yellow]![/] {escape(problem)}")
    if not problems:
        console.print("Everything that was checked is in order.")


def _settings_table(state: Resolved) -> Table:
    table = Table("setting", "value", "origin", box=None, pad_edge=False)
    for name in type(state.settings).model_fields:
        value = getattr(state.settings, name)
        if name == "models_dir" and value is None:
            value = state.settings.effective_models_dir
        table.add_row(name, "" if value is None else str(value), state.origins[name])
    return table


def _libraries_table() -> Table:
    table = Table("library", "version", box=None, pad_edge=False)
    for name in LIBRARIES:
        try:
            table.add_row(name, importlib.metadata.version(name))
        except importlib.metadata.PackageNotFoundError:
            table.add_row(name, "missing")
    return table


def _problems(state: Resolved) -> list[str]:
    settings = state.settings
    found = []
    directory = settings.effective_models_dir
    existing = directory
    while not existing.exists() and existing != existing.parent:
        existing = existing.parent
    if not existing.is_dir() or not os.access(existing, os.W_OK):
        found.append(
            f"{directory} cannot be written: nothing can be installed. Set --models-dir or --state-dir."
        )
    from edgeagent.catalog.library import Library

    try:
        ids = [model.id for model in Library(directory).installed()]
    except EdgeAgentError as exc:
        return [*found, exc.message]
    if settings.default_model not in ids:
        found.append(
            f"The default model {settings.default_model} is not installed: "
            f"`edgeagent models install {settings.default_model}`."
        )
    return found
