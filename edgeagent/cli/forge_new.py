"""`edgeagent forge new`: a model of one's own intents, from examples, served at once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from edgeagent.cli.shared.configured_library import library_of
from edgeagent.cli.shared.domain_model import (
    MakingOptions,
    checked,
    describe,
    make,
    method_of,
    serve,
    workspace_of,
)
from edgeagent.cli.shared.options import configured, settings_options
from edgeagent.errors import ForgeFailed


@click.command()
@click.argument("name")
@click.option(
    "--from", "source", type=click.Path(path_type=Path), required=True, metavar="FILE|DIR",
    help="Examples: CSV (text,intent), JSON lines, YAML of Rasa or Home Assistant, or INTENT.txt.",
)  # fmt: skip
@click.option("--seed", type=click.IntRange(0), default=1, show_default=True,
              help="The same examples and seed give the same model.")  # fmt: skip
@click.option(
    "--method", type=click.Choice(["auto", "head", "torch"]), default="head", show_default=True,
    help="head: a classifier on a base model, without torch. torch: all layers, and slots. auto: "
    "torch where it is installed.",
)  # fmt: skip
@click.option("--minutes", type=click.FloatRange(0.5, 600), default=10.0, show_default=True,
              help="Time for the training with torch, or on thousands of examples.")  # fmt: skip
@click.option("--check-only", is_flag=True, help="Check the examples and train nothing.")
@settings_options
def new(
    name: str,
    source: Path,
    seed: int,
    method: str,
    minutes: float,
    check_only: bool,
    config: Path | None,
    **flags: Any,
) -> None:
    """Teach a model your own intents, and serve it as NAME.

    \b
        edgeagent forge new my-bot --from intents.csv
        edgeagent chat --model my-bot

    \b
    intents.csv:
        text,intent
        is the ferry on time,departure
        book a table for [two](party_size),book_table

    Columns may have other usual names (utterance, label, ...), and files any usual separator and encoding.
    Ten to a hundred examples of each intent. Texts with the intent `oos` belong to none. The examples are
    checked, and two base models are tried: edge-assistant-s, and edge-encoder, which knows broad English
    and fills no slots. The one that gets more unseen texts right is kept, its thresholds are calibrated on
    such texts, and a running daemon answers `"model": "NAME"` at once. An interrupted training goes on with
    the same command.
    """
    settings = configured(config, **flags).settings
    workspace = workspace_of(settings, name)
    from edgeagent.forge.domain.readers.source import read_domain

    if name in {model.id for model in library_of(settings).installed()} and not workspace.is_there:
        raise ForgeFailed(
            f"{name!r} is installed, and `forge new` did not make it: choose another name, or `edgeagent "
            f"models remove {name}`."
        )
    domain = checked(read_domain(source, seed), source)
    if check_only:
        return
    with workspace.alone():
        made = make(settings, workspace, domain, MakingOptions(seed, method_of(method), minutes))
        describe(name, made, serve(settings, workspace, made.entry))
