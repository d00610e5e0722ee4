"""What requests cost, and one score of efficiency with its weights in the open: pure arithmetic.

One request is the timed run: a prompt of `PREFILL_TOKENS` and `DECODE_TOKENS` after it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from edgeagent.errors import InvalidParameter
from edgeagent.optimize.figures import METRICS, Metric, ModelFigures

_JOULES_PER_KWH = 3.6e6
# Of each part: its weight, and the metrics that it may be; the first one that all models have counts.
PARTS: dict[str, tuple[float, tuple[str, ...]]] = {
    "quality": (0.4, ("accuracy", "kld_mean", "perplexity")),
    "decode": (0.2, ("decode_tok_s",)),
    "ttft": (0.1, ("ttft_ms",)),
    "memory": (0.2, ("rss_bytes",)),
    "energy": (0.1, ("energy_j",)),
}
_BY_NAME = {metric.name: metric for metric in METRICS}


@dataclass(frozen=True)
class Prices:
    """In one currency; None: not given. `per_device_hour`: an hour of the device, without its energy."""

    per_kwh: float | None = None
    per_device_hour: float | None = None


@dataclass(frozen=True)
class Part:
    """One part of the score: which metric it is, and its share of the whole."""

    name: str
    metric: str
    weight: float


def cost_per_1000(figures: ModelFigures, prices: Prices) -> float | None:
    """What 1,000 requests cost by the prices that are given; None where one of them needs a figure that was
    not measured."""
    request, energy = figures.spread("request_s"), figures.spread("energy_j")
    if (prices.per_kwh is None and prices.per_device_hour is None) or request is None:
        return None
    cost = (prices.per_device_hour or 0.0) * request.median / 3600
    if prices.per_kwh is not None:
        if energy is None:
            return None
        cost += prices.per_kwh * energy.median / _JOULES_PER_KWH
    return 1000 * cost


def parts_of(models: Sequence[ModelFigures], weights: Mapping[str, float]) -> list[Part]:
    """The parts that all models have a metric for, with weights that sum up to 1."""
    found = []
    for name, (usual, metrics) in PARTS.items():
        weight = weights.get(name, usual)
        for metric in metrics:
            has_all = all(_BY_NAME[metric].value(one) is not None for one in models)
            if has_all and weight > 0:
                found.append(Part(name, metric, weight))
                break
    total = sum(part.weight for part in found)
    return [replace(part, weight=part.weight / total) for part in found]


def scored(
    models: Sequence[ModelFigures], prices: Prices, weights: Mapping[str, float]
) -> tuple[list[ModelFigures], list[Part]]:
    """The models with cost and score, and the parts of the score.

    Each part of a score is how near the model is to the best one, 0 to 1: the ratio of the two, or exp of
    minus what it has more of divergence. One model alone has no score.
    """
    parts = parts_of(models, weights) if len(models) > 1 else []
    found = []
    for one in models:
        score = sum(part.weight * _nearness(_BY_NAME[part.metric], one, models) for part in parts)
        found.append(
            replace(
                one, cost_per_1000=cost_per_1000(one, prices), efficiency=score if parts else None
            )
        )
    return found, parts


def _nearness(metric: Metric, one: ModelFigures, models: Sequence[ModelFigures]) -> float:
    value = metric.value(one)
    values = [v for m in models if (v := metric.value(m)) is not None]
    assert value is not None
    if metric.name == "kld_mean":  # 0 is the best there is, so there are no ratios to it
        return math.exp(min(values) - value)
    if metric.is_lower_better:
        return min(values) / value if value else 1.0
    return value / max(values) if max(values) else 1.0


def read_weights(text: str | None) -> dict[str, float]:
    """Such as "quality=0.5,energy=0". Raises: InvalidParameter."""
    found = {}
    for part in (text or "").split(","):
        if not part.strip():
            continue
        name, _, number = (piece.strip() for piece in part.partition("="))
        try:
            weight = float(number)
        except ValueError:
            weight = -1.0
        if name not in PARTS or not 0 <= weight < float("inf"):
            raise InvalidParameter(
                f"--weights has {part.strip()!r}: write NAME=NUMBER of 0 or more, with the names "
                f"{', '.join(PARTS)}."
            )
        found[name] = weight
    return found
