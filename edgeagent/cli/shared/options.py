"""Options that several commands share, and the settings they make."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from edgeagent.errors import SettingsError

if TYPE_CHECKING:
    from edgeagent.device.configuration import Configuration

Command = TypeVar("Command", bound=Callable[..., Any])


def settings_options(command: Command) -> Command:
    """Options of every command that needs the settings."""
    options = [
        click.option("--config", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE",
                     help="Configuration file (TOML). Default: /etc/edgeagent/edgeagent.toml, if any."),
        click.option("--profile", metavar="NAME", help="Device profile. Default: matched to the device."),
        click.option("--state-dir", type=click.Path(path_type=Path), metavar="DIR",
                     help="Directory of everything the daemon stores."),
        click.option("--models-dir", type=click.Path(path_type=Path), metavar="DIR",
                     help="Directory of installed models. Default: `models` in the state directory."),
        click.option("--offline/--online", default=None, help="Refuse everything that needs a network."),
    ]  # fmt: skip
    for option in reversed(options):
        command = option(command)
    return command


def configured(
    config: Path | None, *, worker_pid: int | None = None, **flags: Any
) -> Configuration:
    """Settings from all layers, including the device profile; warns of old names. `worker_pid` is that of
    `configure`.

    Raises: SettingsError, also if the state or the models directory cannot be used.
    """
    # Imported here: `serve` starts a worker before it takes the time for this.
    from edgeagent.device.configuration import configure

    here = configure(flags=flags, config=config, worker_pid=worker_pid)
    for renaming in here.resolved.renamings:
        _warn(str(renaming))
    state_dir = here.settings.state_dir
    there = next((path for path in (state_dir, *state_dir.parents) if path.exists()), None)
    if there is not None and not there.is_dir():
        raise SettingsError(
            f"State directory {state_dir} cannot be used: {there} is a file, not a directory. Move it away, "
            "or choose another --state-dir."
        )
    if there == state_dir and not os.access(there, os.R_OK | os.X_OK):
        raise SettingsError(
            f"State directory {state_dir} cannot be entered by this user: run as the user that owns it, or "
            "choose another --state-dir."
        )
    models_dir = here.settings.effective_models_dir
    if models_dir.exists() and not models_dir.is_dir():
        raise SettingsError(
            f"Models directory {models_dir} is a file, not a directory: move it away, or choose another "
            "--models-dir."
        )
    return here


@functools.cache
def _warn(text: str) -> None:
    """Print a warning once per process: a command may resolve its settings more than once."""
    click.echo(f"edgeagent: warning: {text}", err=True)
