"""`edgeagent forge new`: a model of one's own intents, from examples, served at once."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any, Literal

import click

from edgeagent.catalog.install.installer import install_entry
from edgeagent.catalog.model_library import Library
from edgeagent.cli.shared.configured_library import catalog_of, library_of
from edgeagent.cli.shared.options import configured, settings_options
from edgeagent.cli.shared.progress import timed_progress
from edgeagent.cli.shared.sizes import megabytes
from edgeagent.cli.shared.trial_load import trial_load
from edgeagent.errors import ForgeFailed
from edgeagent.worker.process_environment import keep_arithmetic_single, keep_kernels

BASE, TEACHER = "edge-assistant-s", "all-minilm-l6-v2"


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
    help="head: new rows for the intents only, without torch. torch: all layers, and slots. auto: "
    "torch where it is installed.",
)  # fmt: skip
@click.option("--minutes", type=click.FloatRange(0.5, 600), default=10.0, show_default=True,
              help="Time for the training with torch.")  # fmt: skip
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
        edgeagent chat my-bot

    \b
    intents.csv:
        text,intent
        is the ferry on time,departure
        book a table for [two](party_size),book_table

    Ten to a hundred examples of each intent. Texts with the intent `oos` belong to none. The examples are
    checked, a model is trained, its thresholds are calibrated on texts it has not seen, and a running daemon
    answers `"model": "NAME"` at once. An interrupted training goes on with the same command.
    """
    here = configured(config, **flags)
    keep_kernels()
    keep_arithmetic_single()
    from edgeagent.forge.domain.build import BuildOptions, build
    from edgeagent.forge.domain.checks import check, without_duplicates
    from edgeagent.forge.domain.readers.source import read_domain
    from edgeagent.forge.domain.trunk import Trunk
    from edgeagent.forge.domain.workspace import Plan, Workspace, digest_of

    library = library_of(here.settings)
    workspace = Workspace(here.settings.state_dir / "forge", name)
    _check_free(name, library, set(catalog_of(here.settings).entries), is_ours=workspace.is_there)
    domain = read_domain(source, seed)
    findings = check(domain)
    for finding in findings:
        click.echo(str(finding), err=True)
    n_errors = sum(finding.kind == "error" for finding in findings)
    if n_errors:
        raise ForgeFailed(
            f"{source} has {n_errors} errors: correct them, then run the command again."
        )
    domain = without_duplicates(domain)
    click.echo(f"{len(domain.intents)} intents, {len(domain.examples)} examples", err=True)
    if check_only:
        return
    way = _method(method)
    if way == "head" and domain.slot_names:
        click.echo("warning: slots need torch: calls will have no arguments without it.", err=True)
        domain = domain.without_slots()
    base = library.resolve(BASE)
    teacher = (
        next((m for m in library.installed() if m.id == TEACHER), None) if way == "torch" else None
    )
    plan = Plan(
        seed,
        way,
        digest_of(domain),
        base.sha256 or "",
        (teacher.sha256 or "") if teacher else "",
        minutes,
    )
    if not workspace.begin(plan, domain):
        click.echo("Going on where it was interrupted.", err=True)
    known = catalog_of(here.settings)
    larger = known.entry(BASE).larger if BASE in known else None
    with timed_progress() as tell:
        options = BuildOptions(seed, way, minutes, teacher.path if teacher else None, larger)
        made = build(domain, Trunk.read(base.path), workspace, options, tell)
    for finding in made.findings:
        click.echo(str(finding), err=True)
    done = install_entry(made.entry, library, trial=trial_load)
    workspace.finish()
    figures = made.figures
    recall = "" if figures.recall is None else f", {figures.recall:.0%} of other texts rejected"
    click.echo(
        f"{name}: {figures.accuracy:.1%} of unseen texts right{recall}; "
        f"{megabytes(done.size_bytes)}, {figures.texts_per_s:.0f} texts/s, {figures.seconds:.0f} s"
    )
    click.echo(f'Served as "model": "{name}". Card: {done.folder / workspace.card.name}')


def _method(wanted: str) -> Literal["head", "torch"]:
    """Raises: ForgeFailed for torch that is not installed."""
    has_torch = importlib.util.find_spec("torch") is not None
    if wanted == "torch" and not has_torch:
        raise ForgeFailed(
            "--method torch needs torch: run pip install 'edgeagent[forge]', or use --method head."
        )
    return "torch" if has_torch and wanted != "head" else "head"


def _check_free(name: str, library: Library, catalog: set[str], *, is_ours: bool) -> None:
    """Raises: ForgeFailed for the name of another model."""
    if name in catalog:
        raise ForgeFailed(f"{name!r} is a model of the catalog: choose another name.")
    there = {model.id: model for model in library.installed()}
    if name in there and not is_ours:
        raise ForgeFailed(
            f"{name!r} is installed, and `forge new` did not make it: choose another name, or `edgeagent "
            f"models remove {name}`."
        )
