"""`edgeagent models adapter`: LoRA adapters of installed models."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click
from rich.table import Table

from edgeagent.catalog.install.adapter_installer import install_adapter
from edgeagent.cli.shared.configured_library import integrity_of, library_of
from edgeagent.cli.shared.options import configured, settings_options
from edgeagent.cli.shared.sizes import megabytes
from edgeagent.cli.shared.terminal import confirm, show_table
from edgeagent.cli.shared.trial_load import trial_adapter
from edgeagent.errors import ModelNotFound


@click.group()
def adapter() -> None:
    """LoRA adapters: small files that change a model, chosen request by request.

    A request names an adapter as its model, or the model and `"lora": "ADAPTER"`. All adapters of a model
    are loaded with it; changing from one to another between requests costs next to nothing.
    """


@adapter.command()
@click.argument("model")
@click.argument("file", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option(
    "--as",
    "adapter_id",
    metavar="ID",
    help="Id of the adapter. Default: derived from the file name.",
)
@settings_options
def add(config: Path | None, model: str, file: Path, adapter_id: str | None, **flags: Any) -> None:
    """Install the adapter in FILE (GGUF, made by llama.cpp's convert_lora_to_gguf.py) for MODEL.

    The file is checked against the model and loaded with it once on trial. A running daemon serves the
    adapter from the next load of the model on; it loads the model again when the adapter is first asked for
    and nothing else uses the model.
    """
    library = library_of(configured(config, **flags).settings)
    base = library.resolve(model)
    done = install_adapter(file, base, library, adapter_id=adapter_id, trial=trial_adapter)
    click.echo(f"Installed {done.id}, an adapter of {done.base} ({megabytes(done.size_bytes)})")
    click.echo(f"sha256 {done.sha256}")


@adapter.command("list")
@click.argument("model", required=False)
@click.option("--json", "is_json", is_flag=True, help="Print all details as JSON.")
@settings_options
def list_(config: Path | None, model: str | None, is_json: bool, **flags: Any) -> None:
    """List the adapters, of MODEL or of all models."""
    here = configured(config, **flags)
    found = library_of(here.settings).adapters(model)
    integrity = integrity_of(here)
    states = {one.id: integrity.standing(one) for one in found}
    if is_json:
        rows = [
            {
                "id": one.id, "base": one.base, "file": str(one.path), "size_bytes": one.size_bytes,
                "sha256": one.sha256, "installed_at": one.installed_at, "state": states[one.id],
            }
            for one in found
        ]  # fmt: skip
        click.echo(json.dumps(rows, indent=2))
        return
    if not found:
        click.echo(
            "No adapter is installed. `edgeagent models adapter add MODEL FILE` installs one."
        )
        return
    table = Table("id", "model", "size", "installed", "state", box=None, pad_edge=False)
    for one in found:
        table.add_row(one.id, one.base, megabytes(one.size_bytes), one.installed_at, states[one.id])
    show_table(table)


@adapter.command()
@click.argument("adapter_id", metavar="ADAPTER")
@click.option("--yes", is_flag=True, help="Do not ask.")
@settings_options
def remove(config: Path | None, adapter_id: str, yes: bool, **flags: Any) -> None:
    """Delete ADAPTER from the models directory.

    A running daemon answers no more requests that name it; what it has loaded goes with the model.
    """
    library = library_of(configured(config, **flags).settings)
    found = library.resolve(adapter_id)
    if found.base is None:
        raise ModelNotFound(
            f"{adapter_id!r} is a model, not an adapter: `edgeagent models remove {adapter_id}` deletes it.",
            param="model",
        )
    confirm(f"Delete {found.path} ({megabytes(found.size_bytes)})?", yes=yes)
    library.remove(adapter_id)
    click.echo(f"Removed {adapter_id}")
