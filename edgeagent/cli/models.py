"""`edgeagent models`: list, approve, verify, remove, load and unload models."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
from rich.table import Table

from edgeagent.catalog.approvals import identity_of
from edgeagent.catalog.chat_template import installed_template
from edgeagent.catalog.gguf.inspection import inspect_apart
from edgeagent.catalog.install_record import InstalledModel
from edgeagent.catalog.integrity import Integrity
from edgeagent.cli.models_adapter import adapter
from edgeagent.cli.models_install import install
from edgeagent.cli.models_recommend import recommend
from edgeagent.cli.models_requantize import NEVER
from edgeagent.cli.shared.chat_template_report import as_json, template_table, warning_of
from edgeagent.cli.shared.configured_library import (
    catalog_of,
    integrity_of,
    library_of,
    model_to_install,
)
from edgeagent.cli.shared.daemon import call
from edgeagent.cli.shared.options import configured, settings_options
from edgeagent.cli.shared.progress import byte_progress
from edgeagent.cli.shared.sizes import megabytes
from edgeagent.cli.shared.terminal import confirm, show_table
from edgeagent.errors import InstallFailed
from edgeagent.settings import Settings

# How `models list` shows models that were not installed.
STANDINGS = {"waiting": "waits for `models approve`", "named": "named in the settings"}


@click.group()
def models() -> None:
    """List, install, verify and remove models.

    Models come from the catalog (`edgeagent models catalog`), from a file of yours, or from *.gguf files
    copied into the models directory, which wait for `models approve`.
    """


models.add_command(recommend)
models.add_command(install)
models.add_command(adapter)


@models.command("list")
@click.option(
    "--verbose",
    "-v",
    is_flag=True,
    help="Also show what the chat template of each model supports, as tested at its installation.",
)
@click.option("--json", "is_json", is_flag=True, help="Print all details as JSON.")
@settings_options
def list_(config: Path | None, verbose: bool, is_json: bool, **flags: Any) -> None:
    """List the installed models.

    With --verbose, also how edgeagent adapts to a chat template: a system message is "folded" into the
    first user message, consecutive messages of one role are "joined", tools and their results are "told" in
    words.
    """
    here = configured(config, **flags)
    settings = here.settings
    found = library_of(settings).installed()
    integrity = integrity_of(here)
    states = {m.id: STANDINGS.get(integrity.standing(m), m.state) for m in found}
    if is_json:
        click.echo(json.dumps([as_json(model, states[model.id]) for model in found], indent=2))
        return
    if not found:
        click.echo(
            f"No model is installed in {settings.effective_models_dir}. "
            f"`edgeagent models install {model_to_install(settings)}` installs a small one."
        )
        return
    table = Table("id", "file", "quant", "size", "source", "state", box=None, pad_edge=False)
    for model in found:
        size = megabytes(model.size_bytes)
        table.add_row(model.id, model.file, model.quant, size, model.source, states[model.id])
    show_table(table)
    if verbose:
        click.echo()
        show_table(template_table(found))
        for warning in filter(None, map(warning_of, found)):
            click.echo(warning)


@models.command()
@settings_options
def catalog(config: Path | None, **flags: Any) -> None:
    """List the models that can be installed by name."""
    settings = configured(config, **flags).settings
    table = Table("id", "task", "parameters", "licence", "quant", "size", box=None, pad_edge=False)
    for entry in catalog_of(settings).entries.values():
        for variant in entry.variants:
            size = megabytes(variant.size_bytes) if variant.size_bytes else ""
            table.add_row(
                entry.id,
                entry.task,
                f"{entry.n_params / 1e6:,.0f} M",
                entry.licence,
                variant.quant,
                size,
            )
    show_table(table)


@models.command(context_settings={"ignore_unknown_options": True, "allow_extra_args": True})
@click.option(
    "--larger",
    is_flag=True,
    help="Also install the larger model that the default model escalates to.",
)
@settings_options
@click.pass_context
def ensure(ctx: click.Context, /, config: Path | None, larger: bool, **flags: Any) -> None:
    """Install a default model unless a model is installed. Accepts the options of `serve`.

    The model stays as it comes: making another tensor type of it takes minutes, and is a step of its own
    (`models install --requantize best`).
    """
    settings = configured(config, **flags).settings
    ids = [model.id for model in library_of(settings).installed()]
    known, default = catalog_of(settings), settings.models.default
    wanted = [] if ids else [model_to_install(settings)]
    if larger and default in known and (second := known.entry(default).larger) is not None:
        wanted += [second] if second not in (*ids, *wanted) else []
    for model in wanted:
        ctx.invoke(
            install, config=config, model=model, quant=None, file=None, requantize=NEVER, **flags
        )
    there = (*ids, *wanted)
    found = next((m for m in (default, model_to_install(settings)) if m in there), there[0])
    click.echo(f"The default model is {found}.")


@models.command()
@click.argument("model")
@click.option("--yes", is_flag=True, help="Do not ask.")
@settings_options
def approve(config: Path | None, model: str, yes: bool, **flags: Any) -> None:
    """Approve the current file of MODEL, which was copied in or has changed.

    Shows its digests first. From then on the daemon serves only this file under that name.
    """
    here = configured(config, **flags)
    library, integrity = library_of(here.settings), integrity_of(here)
    found = library.resolve(model)
    assert library.approvals is not None
    integrity.adopt()
    sha256, _ = integrity.measured(found)
    is_model = found.path.suffix == ".gguf" and found.base is None
    facts = inspect_apart(found.path) if is_model else None
    if found.base is not None:
        library.verify_adapter(found)
    template = facts.template_sha256 if facts is not None else None
    before = library.approvals.get(model)
    _show_digest("sha256", sha256, before.sha256 if before is not None else None)
    _show_digest("chat template", template, before.template_sha256 if before is not None else None)
    own = installed_template(found)
    file = own.sha256 if own is not None else None
    if file is not None or (before is not None and before.template_file_sha256 is not None):
        was = before.template_file_sha256 if before is not None else None
        _show_digest("installed chat template", file, was)
    beside = _measured_beside(integrity, found, before.beside if before is not None else {})
    confirm(f"Serve {found.path.name} ({megabytes(found.size_bytes)}) as {model}?", yes=yes)
    if library.approvals.digest(found.path.absolute(), identity_of(found.path.stat())) != sha256:
        raise InstallFailed(
            f"The file of {model} changed during the approval: check it, then approve it again"
        )
    library.approvals.approve(
        model, sha256, template, "approved", template_file_sha256=file, beside=beside
    )
    click.echo(f"Approved {model}")


def _measured_beside(
    integrity: Integrity, model: InstalledModel, before: Mapping[str, str]
) -> dict[str, str]:
    """Print and return the digests of the model's other files."""
    found = {name: integrity.measured(model, name)[0] for name in model.beside}
    for name, sha256 in found.items():
        _show_digest(name, sha256, before.get(name))
    return found


def _show_digest(name: str, now: str | None, before: str | None) -> None:
    was = f" (approved was {before})" if before not in (None, now) else ""
    click.echo(f"{name}: {now or 'none'}{was}")


@models.command()
@click.argument("model", required=False)
@settings_options
def verify(config: Path | None, model: str | None, **flags: Any) -> None:
    """Hash MODEL (default: every model) again and check its header."""
    settings = configured(config, **flags).settings
    library = library_of(settings)
    names = [model] if model else [found.id for found in library.installed()]
    for name in names:
        with byte_progress() as progress:
            library.verify(name, progress)
        click.echo(f"{name}: good")
    if not names:
        click.echo(f"No model is installed in {settings.effective_models_dir}.")


@models.command()
@click.argument("model")
@click.option("--yes", is_flag=True, help="Do not ask.")
@settings_options
def remove(config: Path | None, model: str, yes: bool, **flags: Any) -> None:
    """Delete MODEL from the models directory."""
    settings = configured(config, **flags).settings
    library = library_of(settings)
    found = library.resolve(model)
    confirm(f"Delete {found.path} ({megabytes(found.size_bytes)})?", yes=yes)
    library.remove(model)
    click.echo(f"Removed {model}")


@models.command()
@click.argument("model")
@click.option("--host", metavar="ADDRESS", help="Address of the daemon. Default: 127.0.0.1.")
@click.option("--port", type=click.IntRange(1, 65535), help="Default: 8484.")
@settings_options
def load(config: Path | None, model: str, **flags: Any) -> None:
    """Let the running daemon load MODEL now."""
    _change(configured(config, **flags).settings, model, "load")


@models.command()
@click.argument("model")
@click.option("--host", metavar="ADDRESS", help="Address of the daemon. Default: 127.0.0.1.")
@click.option("--port", type=click.IntRange(1, 65535), help="Default: 8484.")
@settings_options
def unload(config: Path | None, model: str, **flags: Any) -> None:
    """Let the running daemon unload MODEL and free its memory."""
    _change(configured(config, **flags).settings, model, "unload")


def _change(settings: Settings, model: str, action: str) -> None:
    body = call(settings, "POST", f"/v1/models/{model}/{action}")
    click.echo(f"{body['id']}: {body['state']}")
