"""`edgeagent route replay`: what another policy would have done with the requests of the past."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Collection
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.table import Table

from edgeagent.cli.shared.options import settings_options
from edgeagent.cli.shared.printable import printable
from edgeagent.cli.shared.store import opened
from edgeagent.cli.shared.terminal import show_table
from edgeagent.errors import InvalidParameter

if TYPE_CHECKING:
    from edgeagent.routing.training.decision_log import LoggedDecision
    from edgeagent.routing.training.off_policy import Estimate, Replay

PAGE_ROWS = 1000
DATES = ["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S"]

since_option = click.option(
    "--since", type=click.DateTime(DATES), metavar="DATE",
    help="Only decisions from then on, in UTC: 2026-11-01 or 2026-11-01T08:00:00.",
)  # fmt: skip


owner_option = click.option(
    "--owner", "owners", multiple=True, metavar="OWNER",
    help="Only decisions for API keys of this owner; may be given again.  Default: of all.",
)  # fmt: skip
TOLD_OWNERS = 5


def read_log(
    config: Path | None, flags: dict[str, Any], since: datetime | None = None,
    owners: Collection[str] = (),
) -> list[LoggedDecision]:  # fmt: skip
    """The decisions of this device, or those for some owners. Where several have rated answers it says how
    many each, since whoever rates much decides much. Raises what opening the store raises."""
    found = _read(config, flags, since)
    mine = [one for one in found if not owners or one.owner in owners]
    if unknown := sorted(set(owners) - {one.owner for one in found}):
        raise InvalidParameter(
            f"The log has no decision for keys of {unknown[0][:80]!r}: `edgeagent keys list` shows the "
            "owners."
        )
    rated = Counter(one.owner for one in mine if one.outcome is not None)
    if len(rated) > 1:
        told = ", ".join(f"{name} {n}" for name, n in rated.most_common(TOLD_OWNERS))
        more = f" and {len(rated) - TOLD_OWNERS} more" if len(rated) > TOLD_OWNERS else ""
        click.echo(printable(f"rated answers by owner: {told}{more} (--owner chooses)"), err=True)
    return mine


def _read(
    config: Path | None, flags: dict[str, Any], since: datetime | None
) -> list[LoggedDecision]:
    from edgeagent.routing.training.decision_log import logged
    from edgeagent.store import decisions

    since_ms = int(since.replace(tzinfo=UTC).timestamp() * 1e3) if since is not None else 0
    found: list[LoggedDecision] = []
    after = 0
    with opened(config, flags) as here:
        while True:
            page = partial(decisions.page, since_ms=since_ms, after=after, limit=PAGE_ROWS)
            rows = here.database.read(page)
            found += logged(rows)
            if len(rows) < PAGE_ROWS:
                return found
            after = rows[-1]["at"]


@click.command()
@click.option("--policy", type=click.Path(path_type=Path, dir_okay=False), required=True, metavar="FILE",
              help="Policy to estimate, as `train` and `calibrate` write it.")  # fmt: skip
@since_option
@owner_option
@click.option("--format", "shape", type=click.Choice(["table", "json"]), default="table", show_default=True,
              help="How the estimates are printed.")  # fmt: skip
@settings_options
def replay(
    policy: Path, since: datetime | None, owners: tuple[str, ...], shape: str, config: Path | None,
    **flags: Any,
) -> None:  # fmt: skip
    """Estimate what a policy would have reached on the decisions of this device.

    The outcome is the feedback on the answers (1 right, 0 wrong), the cost that of their requests. Each
    decision counts by the probability with which it was drawn (inverse propensity; SNIPS divides by the sum
    of the weights). So the log must have drawn what the policy chooses: set `[routing] explore`. Where it has
    not, the estimate is refused, and the exit status is 1.
    """
    from edgeagent.routing.score_policy import read_policy
    from edgeagent.routing.training.off_policy import replay as replayed

    scorer = read_policy(policy)
    found = replayed(scorer, read_log(config, flags, since, owners))
    if shape == "json":
        told = {"policy": str(policy), "small": scorer.file.small, "large": scorer.file.large}
        click.echo(json.dumps(_finite(told | found.shown()), indent=2, ensure_ascii=False))
    else:
        _show(found, scorer.file.large)
    if found.refused is not None:
        if shape == "table":
            click.echo(f"No estimate: {found.refused}", err=True)
        raise SystemExit(1)


def _show(found: Replay, large: str) -> None:
    table = Table("", "log", "policy, SNIPS", "policy, IPS", "worth", box=None, pad_edge=False)
    table.add_row(
        "quality", _told(found.logged, 3), _told(found.snips, 3), _told(found.ips, 3),
        f"{found.snips.n_effective:.0f} of {found.snips.n}" if found.snips else "",
    )  # fmt: skip
    for name, cost in found.logged_costs.items():
        of_policy = found.costs.get(name)
        worth = f"{of_policy.n_effective:.0f} of {of_policy.n}" if of_policy else ""
        table.add_row(name, _told(cost, 1), _told(of_policy, 1), "", worth)
    show_table(table)
    agreeing = f"{found.n_agreeing} agree with the log"
    click.echo(
        printable(
            f"{found.n} decisions, {found.n_rated} rated, {agreeing}; {found.share_large:.0%} to {large}"
        )
    )
    for why, n in found.left_out.items():
        click.echo(f"left out: {n} {why}")
    for warning in found.warnings:
        click.echo(f"Warning: {warning}", err=True)


def _told(one: Estimate | None, n_digits: int) -> str:
    if one is None:
        return ""
    if not math.isfinite(one.std_error):
        return f"{one.value:.{n_digits}f}"
    return f"{one.value:.{n_digits}f} ({one.low:.{n_digits}f} to {one.high:.{n_digits}f})"


def _finite(value: Any) -> Any:
    """JSON has no infinity: None in its place."""
    if isinstance(value, dict):
        return {name: _finite(one) for name, one in value.items()}
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
