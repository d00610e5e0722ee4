"""The probability below which an intent is rejected, from texts that the model has not been trained on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from edgeagent.forge.domain.softmax_head import Ids, softmax
from edgeagent.forge.domain.trunk_file import Floats

Bools = np.ndarray[Any, np.dtype[np.bool_]]
# The largest share of texts that a threshold may cost.
MOST_LOST = 0.01


@dataclass(frozen=True)
class Calibration:
    """`threshold`: a less probable intent is rejected. `accuracy` of the choice of intents without it, `lost`
    the share of right choices that it costs, `recall` the share of out-of-scope texts that it finds (None
    without any)."""

    threshold: float
    accuracy: float
    lost: float
    recall: float | None


def calibrate(logits: Floats, labels: Ids, outside: int) -> Calibration:
    """logits: float32 [n, n_classes]; class `outside` is out-of-scope, which is never chosen.

    The threshold is the highest that costs at most `MOST_LOST` of the texts with an intent. The daemon uses
    the same rule (`engine/intents/intent_scoring.py`).
    """
    shares = softmax(logits)
    inner = np.delete(shares, outside, axis=1)
    best = inner.argmax(1) + (inner.argmax(1) >= outside)
    probability = inner.max(1)
    is_inside = labels != outside
    right = is_inside & (best == labels)
    threshold = highest(probability[right], int(MOST_LOST * is_inside.sum()))
    n_inside = max(1, int(is_inside.sum()))
    n_outside = int((~is_inside).sum())
    found = int((~is_inside & (probability < threshold)).sum())
    return Calibration(
        threshold,
        float(right.sum()) / n_inside,
        float((right & (probability < threshold)).sum()) / n_inside,
        found / n_outside if n_outside else None,
    )


def highest(probability: Floats, n_may_lose: int) -> float:
    """The highest threshold that rejects at most `n_may_lose` of these; at most 0.9, 0 without any."""
    if not len(probability):
        return 0.0
    return min(0.9, float(np.sort(probability)[min(n_may_lose, len(probability) - 1)]))
