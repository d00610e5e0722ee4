"""Makes and installs a domain model: what `forge new` and `forge update` have in common."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from edgeagent.catalog.digest import sha256_of
from edgeagent.catalog.install.installer import install_entry
from edgeagent.catalog.install_record import InstalledModel
from edgeagent.cli.shared.configured_library import catalog_of, library_of
from edgeagent.cli.shared.progress import timed_progress
from edgeagent.cli.shared.sizes import megabytes
from edgeagent.cli.shared.trial_load import trial_load
from edgeagent.errors import ForgeFailed
from edgeagent.settings import Settings
from edgeagent.worker.process_environment import keep_arithmetic_single, keep_kernels

if TYPE_CHECKING:
    from edgeagent.forge.domain.build import DomainFigures, Made
    from edgeagent.forge.domain.example import Domain
    from edgeagent.forge.domain.workspace import Workspace

BASE, ENCODER, TEACHER = "edge-assistant-s", "edge-encoder", "all-minilm-l6-v2"
Method = Literal["head", "torch"]


@dataclass(frozen=True)
class MakingOptions:
    """How to make a model; `minutes` is for training with torch."""

    seed: int
    method: Method
    minutes: float


def workspace_of(settings: Settings, name: str) -> Workspace:
    """Raises: ForgeFailed for a name that cannot be one, or that of a model of the catalog."""
    keep_kernels()
    keep_arithmetic_single()
    from edgeagent.forge.domain.workspace import Workspace

    workspace = Workspace(settings.state_dir / "forge", name)
    if name in catalog_of(settings) or name == ENCODER:
        raise ForgeFailed(f"{name!r} is a model of edgeagent: choose another name.")
    return workspace


def made_here(settings: Settings, name: str) -> Workspace:
    """Raises: ForgeFailed for a model that was not made here."""
    workspace = workspace_of(settings, name)
    if not workspace.is_there:
        raise ForgeFailed(
            f"{name!r} was not made here: `edgeagent forge new {name} --from FILE` makes it."
        )
    return workspace


def checked(domain: Domain, source: Path) -> Domain:
    """The domain without duplicates, after telling what is wrong with it. Raises: ForgeFailed for errors."""
    from edgeagent.forge.domain.checks import check, without_duplicates

    findings = check(domain)
    tell_all(findings)
    n_errors = sum(finding.kind == "error" for finding in findings)
    if n_errors:
        raise ForgeFailed(
            f"{source} has {n_errors} error{'s' * (n_errors > 1)}: correct the lines above, then run the "
            "command again."
        )
    domain = without_duplicates(domain)
    click.echo(f"{len(domain.intents)} intents, {len(domain.examples)} examples", err=True)
    return domain


def method_of(wanted: str) -> Method:
    """Raises: ForgeFailed for torch that is not installed."""
    has_torch = importlib.util.find_spec("torch") is not None
    if wanted == "torch" and not has_torch:
        raise ForgeFailed(
            "--method torch needs torch: run pip install 'edgeagent[forge]', or use --method head."
        )
    return "torch" if has_torch and wanted != "head" else "head"


def make(settings: Settings, workspace: Workspace, domain: Domain, options: MakingOptions) -> Made:
    """Train and write a new version, which is not installed yet. Raises: ForgeFailed."""
    from edgeagent.forge.domain.build import BuildOptions, build
    from edgeagent.forge.domain.encoder_trunk import EncoderTrunk
    from edgeagent.forge.domain.head_training import Base
    from edgeagent.forge.domain.trunk import Trunk
    from edgeagent.forge.domain.workspace import Plan, digest_of

    if options.method == "head" and domain.slot_names:
        click.echo("warning: slots need torch: calls will have no arguments without it.", err=True)
        domain = domain.without_slots()
    library, known = library_of(settings), catalog_of(settings)
    base = library.resolve(BASE)
    there = {model.id: model for model in library.installed()}
    teacher = there.get(TEACHER) if options.method == "torch" else None
    bases: list[Base] = [Trunk.read(base.path)]
    digests = base.sha256 or ""
    encoder = encoder_of(settings)
    if encoder is not None and not domain.slot_names:  # it fills no slots
        bases.append(EncoderTrunk.read(encoder))
        digests += f" {sha256_of(encoder)}"
    plan = Plan(
        options.seed, options.method, digest_of(domain), digests,
        (teacher.sha256 or "") if teacher is not None else "", options.minutes,
    )  # fmt: skip
    if not workspace.begin(plan, domain):
        click.echo("Going on where it was interrupted.", err=True)
    how = BuildOptions(
        options.seed, options.method, options.minutes,
        teacher.path if teacher is not None else None,
        known.entry(BASE).larger if BASE in known else None,
    )  # fmt: skip
    with timed_progress() as tell:
        made = build(domain, bases, workspace, how, tell)
    tell_all(made.findings)
    tell_choice(made.figures)
    return made


def encoder_of(settings: Settings) -> Path | None:
    """The file of the general sentence encoder; None where none is shipped."""
    found = sorted((library_of(settings).shipped_dir / ENCODER).glob("*.gguf"))
    return found[0] if found else None


def tell_choice(figures: DomainFigures) -> None:
    """Which of the base models was taken, and why."""
    if len(figures.tried) > 1:
        said = ", ".join(f"{name} {accuracy:.1%}" for name, accuracy in figures.tried.items())
        click.echo(f"Base model: {figures.base} (unseen texts right: {said}).", err=True)


def serve(settings: Settings, workspace: Workspace, entry: Any) -> InstalledModel:
    """Install a version, which a running daemon answers with at once. Raises: InstallFailed."""
    done = install_entry(entry, library_of(settings), trial=trial_load)
    workspace.finish(done.sha256 or "")
    return done


def served_digest(settings: Settings, name: str) -> str | None:
    """The digest of the model that is installed under this name; None where none is."""
    found = (model.sha256 for model in library_of(settings).installed() if model.id == name)
    return next(found, None)


def describe(name: str, made: Made, done: InstalledModel) -> None:
    figures = made.figures
    recall = "" if figures.recall is None else f", {figures.recall:.0%} of other texts rejected"
    click.echo(
        f"{name}: {figures.accuracy:.1%} of unseen texts right{recall}; "
        f"{megabytes(done.size_bytes)}, {figures.texts_per_s:.0f} texts/s, {figures.seconds:.0f} s"
    )
    card = next((file for file in done.extra if file.endswith("README.md")), "")
    click.echo(f'Served as "model": "{name}". Card: {done.folder / card}')


def tell_all(findings: list[Any]) -> None:
    for finding in findings:
        click.echo(str(finding), err=True)
