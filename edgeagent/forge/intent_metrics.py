"""Metrics of a model's choice of intents, and the probability below which a choice is rejected.

The best intent is chosen without out-of-scope; its probability is relative to everything on offer,
including out-of-scope. The daemon uses the same rule (`engine/intents/intent_scoring.py`).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from edgeagent.catalog.assistant_intents import ALL
from edgeagent.forge.datasets import DOMAINS, OUT_OF_SCOPE, Item
from edgeagent.forge.intent_classes import IntentClasses, Threshold, calibrate

# The largest share of a domain's items that its threshold may cost.
MOST_LOST = 0.005


def intent_figures(
    logits: Tensor, items: Sequence[Item], classes: IntentClasses, most: float = MOST_LOST
) -> dict[str, float]:
    """Accuracy by domain with the domain's names on offer, and the effect of a threshold that costs at
    most `most` of the in-scope items of CLINC150. `score` is the mean of the accuracies.

    logits: float [n_items, n_classes].
    """
    labels, domains = classes.labels(items)
    best, is_right, is_outside = _choices(classes.narrowed(logits, domains), labels, classes)
    figures: dict[str, float] = {}
    for row, domain in enumerate(DOMAINS):
        mine = (domains == row) & ~is_outside
        figures[domain] = float(is_right[mine].float().mean())
    mine = domains == DOMAINS.index("assistant")
    threshold = calibrate(best[mine], is_right[mine], is_outside[mine], most=most)
    return figures | {
        "oos_recall": threshold.recall,
        "oos_cost": threshold.cost,
        "oos_threshold": threshold.value,
        "score": sum(figures.values()) / len(DOMAINS),
    }


def thresholds(
    logits: Tensor, items: Sequence[Item], classes: IntentClasses, most: float = MOST_LOST
) -> dict[str, Threshold]:
    """For each domain, and for all of them together (`ALL`), the highest threshold that costs at most
    `most` of its items. Out-of-scope texts count as such in every domain.

    logits: float [n_items, n_classes].
    """
    labels, domains = classes.labels(items)
    is_outside = labels == classes.names.index(OUT_OF_SCOPE)
    found: dict[str, Threshold] = {}
    for row, domain in enumerate(DOMAINS):
        mine = (domains == row) | is_outside
        here = torch.full_like(domains[mine], row)
        offered = classes.narrowed(logits[mine], here)
        found[domain] = calibrate(*_choices(offered, labels[mine], classes), most=most)
    found[ALL] = calibrate(*_choices(logits, labels, classes), most=most)
    return found


def _choices(
    logits: Tensor, labels: Tensor, classes: IntentClasses
) -> tuple[Tensor, Tensor, Tensor]:
    """The probability of the best intent, whether it is the label, and whether no intent is."""
    outside = classes.names.index(OUT_OF_SCOPE)
    best = torch.softmax(logits, -1)[:, :outside].max(-1)
    return best.values, best.indices == labels, labels == outside
