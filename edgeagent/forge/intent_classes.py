"""Intents as numbered classes, and which of them are on offer in which domain."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from edgeagent.forge.datasets import DOMAINS, OUT_OF_SCOPE, Corpus, Item

NOT_ON_OFFER = -1e4


@dataclass(frozen=True)
class IntentClasses:
    """`names` by class; `on_offer`: bool [n_domains, n_classes], out-of-scope in each."""

    names: tuple[str, ...]
    on_offer: Tensor

    @classmethod
    def of(cls, corpus: Corpus) -> IntentClasses:
        names = corpus.all_names
        on_offer = torch.zeros(len(DOMAINS), len(names), dtype=torch.bool)
        for row, domain in enumerate(DOMAINS):
            for name in (*corpus.names[domain], OUT_OF_SCOPE):
                on_offer[row, names.index(name)] = True
        return cls(names, on_offer)

    @property
    def n(self) -> int:
        return len(self.names)

    def labels(self, items: Sequence[Item]) -> tuple[Tensor, Tensor]:
        """Class and domain of each item: int64 [n_items] both."""
        number = {name: i for i, name in enumerate(self.names)}
        classes = torch.tensor([number[item.intent] for item in items])
        domains = torch.tensor([DOMAINS.index(item.domain) for item in items])
        return classes, domains

    def narrowed(self, logits: Tensor, domains: Tensor) -> Tensor:
        """Logits [n, n_classes] with a very low value for classes that are not on offer."""
        return logits.masked_fill(~self.on_offer[domains], NOT_ON_OFFER)


def distilled(
    logits: Tensor,
    classes: Tensor,
    taught: Tensor | None,
    is_taught: Tensor | None = None,
    *,
    weight: float,
    temperature: float,
) -> Tensor:
    """Cross-entropy with the labels and with the teacher's output for each text.

    logits: float [n, n_classes]; classes: int64 [n]; taught: the teacher's log-probabilities, or None;
    is_taught: bool [n], which rows of it are valid. `weight` is the teacher's share; both sides are
    softened by `temperature`, whose square keeps the size of the gradient.

    Source: Hinton et al. 2015, arXiv:1503.02531.
    """
    hard = F.cross_entropy(logits, classes, reduction="none")
    if taught is None or weight == 0:
        return hard.mean()
    soft = F.kl_div(
        F.log_softmax(logits / temperature, -1),
        F.softmax(taught / temperature, -1),
        reduction="none",
    ).sum(-1)
    mixed = (1 - weight) * hard + weight * temperature**2 * soft
    if is_taught is not None:
        mixed = torch.where(is_taught, mixed, hard)
    return mixed.mean()


@dataclass(frozen=True)
class Threshold:
    """Below `value` the most probable intent is rejected. `cost` is the share of in-scope items that were
    right and are lost by it, `recall` the share of out-of-scope items that are recognised."""

    value: float
    cost: float
    recall: float


def calibrate(
    probability: Tensor, is_right: Tensor, is_outside: Tensor, *, most: float
) -> Threshold:
    """The highest threshold that costs at most `most` of the in-scope items.

    All [n_items]: float `probability` of the best intent, bool `is_right` (the best intent is the label),
    `is_outside` (no intent matches). Items that are wrong anyway are no cost.
    """
    inside = ~is_outside
    n_inside = int(inside.sum())
    right = torch.sort(probability[inside & is_right]).values
    n_may_lose = int(most * n_inside)
    value = float(right[min(n_may_lose, len(right) - 1)]) if len(right) else 0.0
    lost = int((right < value).sum())
    n_found = int((is_outside & (probability < value)).sum())
    return Threshold(value, lost / max(1, n_inside), n_found / max(1, int(is_outside.sum())))
