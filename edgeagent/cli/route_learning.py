"""`edgeagent route evaluate`: learned routing on texts with known outcomes.

numpy is imported when a command runs: it is a process of its own and serves nothing.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
from rich.table import Table

from edgeagent.cli.shared.terminal import show_table

if TYPE_CHECKING:
    from edgeagent.routing.training.evaluation import Evaluation
    from edgeagent.routing.training.outcome_files import Pair

Command = TypeVar("Command", bound=Callable[..., Any])

INPUT = click.Path(path_type=Path, dir_okay=False)


class ManyFiles(click.Command):
    """A command whose options for files take several: `--data a.csv b.csv` is `--data a.csv --data b.csv`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        many = {
            name
            for option in self.params
            if isinstance(option, click.Option) and option.multiple
            for name in option.opts
        }
        return super().parse_args(ctx, spread(args, many))


def spread(args: list[str], many: set[str]) -> list[str]:
    """Repeat the name of an option before each of its values."""
    found: list[str] = []
    current: str | None = None
    has_value = False
    for arg in args:
        if arg.startswith("-"):
            current, has_value = (arg if arg in many else None), False
        elif current is not None and has_value:
            found.append(current)
        else:
            has_value = current is not None
        found.append(arg)
    return found


def model_options(command: Command) -> Command:
    """Which columns of the files are the two models."""
    options = [
        click.option("--small", metavar="NAME", help="Column of the small model. Default: the lowest mean."),
        click.option("--large", metavar="NAME", help="Column of the large model. Default: the highest mean."),
        click.option("--seed", type=click.IntRange(0), default=0, show_default=True, metavar="N",
                     help="Seed of folds and of resampling."),
    ]  # fmt: skip
    for option in reversed(options):
        command = option(command)
    return command


@click.command(cls=ManyFiles)
@click.option("--data", type=INPUT, multiple=True, required=True, metavar="FILE...",
              help="Texts and how well each model answered them: CSV or JSON lines.")  # fmt: skip
@click.option("--train", "training", type=INPUT, multiple=True, metavar="FILE...",
              help="Train on these. Default: folds of the data.")  # fmt: skip
@click.option("--folds", type=click.Choice(["random", "files"]), default="random", show_default=True,
              help="How the data is cut: at random, or by whole files.")  # fmt: skip
@model_options
@click.option(
    "--middle", metavar="NAME", help="Column of a single model in between, to compare with."
)
@click.option("--format", "shape", type=click.Choice(["table", "json"]), default="table", show_default=True,
              help="How the measures are printed.")  # fmt: skip
@click.option(
    "--plot", type=INPUT, metavar="FILE", help="Write curves and reliability as a PNG file."
)
def evaluate(
    data: tuple[Path, ...], training: tuple[Path, ...], folds: str, small: str | None, large: str | None,
    middle: str | None, seed: int, shape: str, plot: Path | None,
) -> None:  # fmt: skip
    """Measure how well a learned policy routes between two models, beside simple policies.

    \b
        edgeagent route evaluate --data mmlu/*.csv --folds files
        edgeagent route evaluate --data gsm8k.csv --train mmlu/*.csv --format json --plot curves.png

    A file has a column `prompt` and one for each model: True, False or a number from 0 to 1. Without --train,
    each fold of the data is scored by a policy that was trained on the others. The measures are those of
    RouteLLM: APGR (0 is always small, 1 always large), and CPT50 and CPT80, the percent of requests to the
    large model that recover half and four fifths of the gap between the two.
    """
    from edgeagent.routing.training import evaluation

    pair, seen = pairs_of(data, training, small, large, middle)
    if seen is not None:
        learned = evaluation.learned_elsewhere(seen, pair, seed)
    else:
        kind: evaluation.Folds = "files" if folds == "files" else "random"
        learned = evaluation.learned_by_folds(pair, kind, seed)
    found = evaluation.evaluate(pair, learned, seed)
    if plot is not None:
        from edgeagent.routing.training.plots import draw

        draw(found, plot)
    if shape == "json":
        told = {
            "small": pair.small_name, "large": pair.large_name, "n": len(pair),
            "folds": "train" if seen is not None else folds, "policies": found.measures,
        }  # fmt: skip
        click.echo(json.dumps(told, indent=2, ensure_ascii=False))
        return
    _show(found, pair)


def pairs_of(
    data: tuple[Path, ...], training: tuple[Path, ...], small: str | None, large: str | None,
    middle: str | None,
) -> tuple[Pair, Pair | None]:  # fmt: skip
    """The data, and what to train on where it is given; both with the same two models."""
    from edgeagent.routing.training.outcome_files import pair_of, read_outcomes

    if not training:
        return pair_of(read_outcomes(data), small, large, middle), None
    seen = pair_of(read_outcomes(training), small, large, None)
    found = read_outcomes(data)
    return pair_of(found, seen.small_name, seen.large_name, middle), seen


def _show(found: Evaluation, pair: Pair) -> None:
    table = Table(
        "policy",
        "APGR",
        "",
        "CPT50",
        "CPT80",
        "area",
        "ECE",
        "oracle gap",
        box=None,
        pad_edge=False,
    )
    for name, one in found.measures.items():
        if "apgr_ci" not in one:
            continue
        low, high = one["apgr_ci"]
        table.add_row(
            name, f"{one['apgr']:.3f}", f"{low:.3f} to {high:.3f}", f"{one['cpt50']:.1f}%",
            f"{one['cpt80']:.1f}%", f"{one['area']:.4f}", f"{one['ece']:.3f}" if "ece" in one else "",
            f"{one['oracle_gap']:.3f}",
        )  # fmt: skip
    show_table(table)
    click.echo(
        f"{len(pair)} texts; {pair.small_name} {pair.small.mean():.3f}, {pair.large_name} "
        f"{pair.large.mean():.3f} of the answers right"
    )
    if "middle" in found.measures:
        middle = found.measures["middle"]
        click.echo(f"middle {middle['quality']:.3f}: {middle['recovered']:.0%} of the gap")
