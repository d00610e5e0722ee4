"""`edgeagent forge update` and `rollback`: more examples for a model of one's own, and the way back."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgeagent.cli.shared.domain_model import (
    MakingOptions,
    checked,
    describe,
    made_here,
    make,
    serve,
    served_digest,
)
from edgeagent.cli.shared.options import configured, settings_options
from edgeagent.errors import ForgeFailed
from edgeagent.settings import Settings

if TYPE_CHECKING:
    from edgeagent.forge.domain.workspace import Workspace

# The share of known texts that an update may lose.
MOST_LOST = 0.005
_SHOWN = 20


@click.command()
@click.argument("name")
@click.option(
    "--from", "source", type=click.Path(path_type=Path), required=True, metavar="FILE|DIR",
    help="New and corrected examples, in any format of `forge new`.",
)  # fmt: skip
@click.option("--accept", is_flag=True, help="Serve it even if it loses texts that it knew.")
@settings_options
def update(name: str, source: Path, accept: bool, config: Path | None, **flags: Any) -> None:
    """Train NAME again with more examples beside those it has.

    An example that is there already gets its new intent. All examples are learnt again, so that nothing is
    forgotten; texts that the model knew and now gets wrong are listed. Where these are more than 0.5% the
    old version stays, unless you give --accept. `edgeagent forge rollback NAME` brings it back.
    """
    settings = configured(config, **flags).settings
    workspace = made_here(settings, name)
    with workspace.alone():
        _update(settings, workspace, source, accept)


def _update(settings: Settings, workspace: Workspace, source: Path, accept: bool) -> None:
    from edgeagent.forge.domain.merging import merged, regressions
    from edgeagent.forge.domain.readers.source import read_domain

    name = workspace.name
    workspace.settle(served_digest(settings, name))
    plan, old = workspace.plan(), workspace.examples()
    domain = checked(merged(old, read_domain(source, plan.seed)), source)
    before = workspace.current_gguf()
    made = make(settings, workspace, domain, MakingOptions(plan.seed, plan.method, plan.minutes))
    lost, n_known = asyncio.run(regressions(before, workspace.gguf, old, domain))
    for example, choice in lost[:_SHOWN]:
        click.echo(f"lost: {example.text[:80]!r} ({example.intent}) is now {choice!r}", err=True)
    click.echo(f"{len(lost)} of {n_known} texts that it knew are lost.", err=True)
    if len(lost) > MOST_LOST * n_known and not accept:
        raise ForgeFailed(
            f"{name} would lose {len(lost)} of {n_known} texts that it knows, and {MOST_LOST:.1%} is the "
            "most: correct the new examples, or give --accept."
        )
    describe(name, made, serve(settings, workspace, made.entry))


@click.command()
@click.argument("name")
@settings_options
def rollback(name: str, config: Path | None, **flags: Any) -> None:
    """Serve the version of NAME before the current one. The last three versions are kept."""
    settings = configured(config, **flags).settings
    workspace = made_here(settings, name)
    with workspace.alone():
        workspace.settle(served_digest(settings, name))
        entry = workspace.previous()
        workspace.discard()
        done = serve(settings, workspace, entry)
    click.echo(f"{name} is version {workspace.version_of(done.sha256 or '')} again.")
