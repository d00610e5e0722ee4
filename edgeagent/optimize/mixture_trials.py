"""Mixtures of tensor types that are fitted to the bound of the divergence: made, measured, and made anew with
more or less of the faster types.

The divergence that counts is measured on text that the choice of types has not seen.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

from edgeagent.catalog.gguf.header import read_header
from edgeagent.catalog.sizing.speed import Rates
from edgeagent.optimize.allocation import Allocation
from edgeagent.optimize.faster_mixture import MixtureCosts
from edgeagent.optimize.quantize import predicted_bytes
from edgeagent.optimize.recipe import Recipe
from edgeagent.optimize.requantization import Forecast, RequantizedFile, Trials, forecast_of
from edgeagent.optimize.sensitivity import quantizable

# How a mixture is fitted to the bound: the share of what is left of it that is tried first, how far a file
# above it leads back, and from where on it is good enough.
FIRST_SHARE, STEP_BACK, ENOUGH_SHARE = 0.85, 1.2, 0.85
MOST_MIXTURES = 4


async def mixtures_tried(
    trials: Trials, costs: MixtureCosts, *, n_most: int = MOST_MIXTURES
) -> AsyncIterator[RequantizedFile]:
    """Mixtures, each as fast as what was measured of the ones before lets hope for; the last one that is
    within the bound by two standard errors, which is the fastest of them, is timed and comes last. Its file
    is the only one left. Raises as `tried`."""
    target = FIRST_SHARE * trials.bound
    best, seen = None, set()
    for _ in range(n_most):
        allocation = costs.fastest_within(target)
        if allocation is None or (key := tuple(sorted(allocation.kinds.items()))) in seen:
            break
        seen.add(key)
        made = await trials.scored(
            *mixture_of(trials.source, allocation), costs.columns, is_scored_whole=True
        )
        most, expected = made.largest_divergence, costs.divergence_of(allocation)
        if most > trials.bound:
            yield made
            made.path.unlink(missing_ok=True)
            if best is not None:
                break
            # A part of the divergence is that of all files, or else the costs are too low throughout.
            less = expected - STEP_BACK * (most - trials.bound)
            target = less if less > 0 else FIRST_SHARE * expected * trials.bound / most
            continue
        if best is not None:
            best.path.unlink(missing_ok=True)
        best = made
        if most > ENOUGH_SHARE * trials.bound:
            break
        target = expected + FIRST_SHARE * (trials.bound - most)
    if best is not None:
        yield await trials.timed(best)


def mixture_of(source: Path, allocation: Allocation) -> tuple[str, Recipe]:
    """The name and the recipe of a mixture. All other matrices stay as they are."""
    header = read_header(source)
    own = {tensor.name: tensor.type.name for tensor in header.tensors}
    kinds = {name: own[name] for name in quantizable(header)} | allocation.kinds
    size = predicted_bytes(header, own | kinds)
    return f"mixed-{size / 1e6:.4g}MB", Recipe("Q8_0", kinds, plain=allocation.plain)


def forecast_of_mixture(source: Path, rates: Rates, mixture: Path) -> Forecast:
    """What its types let expect of a file, by the rates of types."""
    types = {tensor.name: tensor.type.name for tensor in read_header(mixture).tensors}
    return forecast_of(source, rates, mixture.stem, types)
