"""`edgeagent models install`: from the catalog, a file, a URL or a hub; or the best model for this device."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import click

from edgeagent.catalog.install import installer as installing
from edgeagent.catalog.install.model_reference import HubReference, Reference, read_reference
from edgeagent.catalog.recommendation import Requirements
from edgeagent.cli.models_recommend import TASKS, best_here
from edgeagent.cli.models_requantize import (
    AUTO,
    MIXTURE_MINUTES,
    NEVER,
    checked_type,
    offer_requantization,
)
from edgeagent.cli.shared.chat_template_report import given_template, warning_of
from edgeagent.cli.shared.configured_library import catalog_of, library_of
from edgeagent.cli.shared.options import configured, settings_options
from edgeagent.cli.shared.progress import byte_progress
from edgeagent.cli.shared.sizes import megabytes
from edgeagent.cli.shared.trial_load import trial_load
from edgeagent.device.configuration import Configuration
from edgeagent.errors import InstallFailed


@click.command()
@click.argument("model", required=False)
@click.option(
    "--quant",
    metavar="NAME",
    help="Variant, as listed by `models catalog`. Default: the first.",
)
@click.option("--task", type=click.Choice(TASKS), default="chat", show_default=True,
              help="Without MODEL: what the model is for.")  # fmt: skip
@click.option(
    "--language", metavar="CODE", help="Without MODEL: required language, such as en or de."
)
@click.option("--file", type=click.Path(path_type=Path, exists=True, dir_okay=False), metavar="PATH",
              help="Read the model from this file, e.g. on a USB stick, instead of the network.")  # fmt: skip
@click.option(
    "--as", "model_id", metavar="ID",
    help="Id of a model that is not in the catalog. Default: derived from the file name.",
)  # fmt: skip
@click.option(
    "--chat-template",
    "template",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Use the Jinja template in FILE instead of the model's own. For an installed MODEL nothing is "
    "downloaded; installing MODEL without this option restores its own template.",
)
@click.option(
    "--force", is_flag=True, help="Install even if the weights exceed the memory for models."
)
@click.option(
    "--requantize", metavar="TYPE|auto|best|never", default=AUTO, show_default=True,
    help="Make another tensor type of the installed file, such as Q4_0, and install it if its KL divergence "
    "is within models.requantize_divergence. auto: offer the type that is fastest on this device, at a "
    "terminal; elsewhere say what would be offered. best: make that without a question.",
)  # fmt: skip
@click.option(
    "--requantize-text", type=click.Path(path_type=Path, exists=True, dir_okay=False), metavar="FILE",
    help="Measure the KL divergence on this text (UTF-8, or chats in JSON lines); default: one about "
    "edgeagent.",
)  # fmt: skip
@click.option(
    "--requantize-minutes", type=click.FloatRange(0, 600), default=MIXTURE_MINUTES, show_default=True,
    help="With auto and best: how long the matrices are probed, at most, for a mixture of types; the fewer "
    "minutes, the more layers are probed together. 0: no mixture.",
)  # fmt: skip
@settings_options
def install(
    config: Path | None,
    model: str | None,
    quant: str | None,
    file: Path | None,
    task: str = "chat",
    language: str | None = None,
    model_id: str | None = None,
    template: Path | None = None,
    force: bool = False,
    requantize: str = NEVER,
    requantize_text: Path | None = None,
    requantize_minutes: float = MIXTURE_MINUTES,
    **flags: Any,
) -> None:
    """Install MODEL: an id of the catalog; a GGUF file or a directory with one; https://.../NAME.gguf; or a
    Hugging Face repository, hf.co/OWNER/REPO:QUANT or hf.co/OWNER/REPO/FILE.gguf. Without MODEL, install the
    first recommendation of `models recommend` for this device.

    The file is hashed, checked and loaded once on trial before it replaces an installed one. If the command
    is interrupted, the old state remains; run it again.
    """
    here = configured(config, **flags)
    settings = here.settings
    if model is None:
        if (quant, file, template) != (None, None, None):
            raise click.UsageError(
                "--quant, --file and --chat-template need a MODEL: see `edgeagent models catalog`."
            )
        best = best_here(here, Requirements(task, None, language, None))
        model, quant = best.model_id, best.quant
        click.echo(
            f"Profile {here.profile.name}: {model} {quant}, {megabytes(best.memory.total_bytes)} of "
            f"memory, about {best.decode_tokens_per_s:.0f} tokens/s"
        )
    library, known = library_of(settings), catalog_of(settings)
    requantize = checked_type(requantize)
    chat_template = given_template(template)
    if (
        template is not None
        and model in known
        and known.entry(model).task not in ("chat", "assistant")
    ):
        raise click.UsageError(f"{model} does not generate text: leave out --chat-template.")
    is_bare = (quant, file, model_id) == (None, None, None)
    there = {found.id: found for found in library.installed()} if is_bare else {}
    if chat_template is not None and model in there:
        done = installing.set_template(there[model], library, chat_template, trial=trial_load)
        click.echo(
            f"{done.id} has the chat template {done.template_file}. A running daemon uses it from "
            f"the next load on: `edgeagent models unload {done.id}`."
        )
        return
    reference = None if model in known else read_reference(model)
    _check_options(model, reference, quant, file, model_id)
    if isinstance(reference, HubReference) and quant is not None:
        reference = replace(reference, quant=quant)
    fits = partial(_check_memory, here, force)
    with byte_progress() as progress:
        if reference is not None:
            done = installing.install_reference(
                reference, library, model_id=model_id, offline=settings.offline, fits=fits,
                trial=trial_load, template=chat_template, progress=progress,
            )  # fmt: skip
        else:
            done = installing.install(
                model, library, known, quant=quant, offline=settings.offline,
                file=file, fits=fits, trial=trial_load, template=chat_template, progress=progress,
            )  # fmt: skip
    click.echo(f"Installed {done.id} ({done.quant}, {megabytes(done.size_bytes)}) in {done.folder}")
    click.echo(f"sha256 {done.sha256}")
    if (warning := warning_of(done)) is not None:
        click.echo(warning, err=True)
    offer_requantization(
        here, library, done, requantize, requantize_text, chat_template, requantize_minutes
    )


def _check_options(
    model: str,
    reference: Reference | None,
    quant: str | None,
    file: Path | None,
    model_id: str | None,
) -> None:
    """Raises: UsageError for options that do not apply to MODEL."""
    if reference is None and model_id is not None:
        raise click.UsageError(
            f"--as is for models outside the catalog, and {model} is in it: leave it out."
        )
    if reference is not None and file is not None:
        raise click.UsageError("--file is for models of the catalog: leave it out.")
    if quant is not None and not (reference is None or isinstance(reference, HubReference)):
        raise click.UsageError(
            "--quant selects one of several files, and MODEL is a single file: leave it out."
        )


def _check_memory(here: Configuration, force: bool, name: str, size_bytes: int) -> None:
    """Raises: InstallFailed for weights that do not fit, before they are downloaded."""
    if not force and size_bytes > here.budget.n_bytes:
        room = megabytes(here.budget.n_bytes)
        raise InstallFailed(
            f"{name} has {megabytes(size_bytes)} of weights, and models may use {room} here "
            f"({here.budget.bound_by}): choose a smaller quantization or model, or give --force."
        )
