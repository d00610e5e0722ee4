"""Decode rates of candidates on this device: timed while others are quiet, and predicted beforehand.

A rate is that of the best run, by the fastest tenth of its tokens: what the file can do where nothing delays
it. Medians of runs differ by a fifth from hour to hour on a shared machine, these by a few percent, so that
files can be compared. What users get is up to a quarter less (scripts/benchmarks/RESULTS.md).
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edgeagent.optimize.evaluate import (
    EvaluationOptions,
    time_model,
)
from edgeagent.optimize.figures import RunFigures
from edgeagent.optimize.quietness import is_quiet

# A rate is taken of so many quiet runs, each in a process of its own; at most so many are made for it.
QUIET_RUNS, MAX_RUNS = 3, 6
# After so many disturbed runs in a row the machine is taken for busy for longer.
BUSY_RUNS = 2
TOLERANCE = 0.2


@dataclass(frozen=True)
class DecodeRate:
    """Tokens per second. `others_cores`: 0 where the runs that count were quiet; else what other programs
    used during the best of them."""

    tok_s: float
    others_cores: float


def decode_rate(runs: Sequence[RunFigures]) -> DecodeRate:
    """Of the best quiet run; where there is none, of the best one, which others slowed least."""
    quiet = [run for run in runs if is_quiet(run.others_cores)]
    best = max(quiet or runs, key=lambda run: run.undisturbed_tok_s)
    return DecodeRate(best.undisturbed_tok_s, 0.0 if quiet else best.others_cores or 0.0)


async def timed_decode(
    path: Path, evaluation: EvaluationOptions, max_runs: int = MAX_RUNS
) -> DecodeRate:
    """Time a model until enough runs were quiet, or often enough."""
    runs: list[RunFigures] = []
    while not is_enough(runs, max_runs):
        runs.append(await time_model(path, evaluation))
    return decode_rate(runs)


def is_enough(runs: Sequence[RunFigures], max_runs: int = MAX_RUNS) -> bool:
    """Whether another run would tell nothing more, or takes too long for what it tells."""
    quiet = [is_quiet(run.others_cores) for run in runs]
    is_busy = len(quiet) >= BUSY_RUNS and not any(quiet[-BUSY_RUNS:])
    return len(runs) >= max_runs or sum(quiet) >= QUIET_RUNS or is_busy


def predictions(
    by_types: Sequence[float | None], timed: Sequence[DecodeRate]
) -> list[float | None]:
    """The rate of each candidate expected before it was timed: that by its types (`type_speeds`), times the
    median of 1 and of the ratios of timed to that among those before it. Runs that others slowed say nothing.
    """
    found: list[float | None] = []
    ratios = [1.0]
    for by_type, rate in zip(by_types, timed, strict=True):
        if not by_type:
            found.append(None)
            continue
        found.append(by_type * statistics.median(ratios))
        if not rate.others_cores:
            ratios.append(rate.tok_s / by_type)
    return found


def n_within(predicted: Sequence[float | None], timed: Sequence[DecodeRate]) -> tuple[int, int]:
    """How many predictions are within `TOLERANCE` of what was timed on a quiet machine, and how many of these
    there are."""
    pairs = [
        (p, rate.tok_s)
        for p, rate in zip(predicted, timed, strict=True)
        if p is not None and not rate.others_cores
    ]
    return sum(abs(p / t - 1) <= TOLERANCE for p, t in pairs), len(pairs)
