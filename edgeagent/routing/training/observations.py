"""Outcomes of two models on texts, complete from files or partial from the log of a device."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgeagent.routing.text_features import TextFeatures, features
from edgeagent.routing.training.decision_log import LoggedDecision
from edgeagent.routing.training.outcome_files import Pair

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Observations:
    """`small` and `large` are outcomes from 0 to 1, NaN where the model was not chosen: float64 [n].
    `weights` are 1 for files, 1 / propensity for a log."""

    features: list[TextFeatures]
    domains: list[str | None]
    small: Floats
    large: Floats
    weights: Floats

    def __len__(self) -> int:
        return len(self.features)

    @property
    def has_small(self) -> NDArray[np.bool_]:
        return ~np.isnan(self.small)

    @property
    def has_large(self) -> NDArray[np.bool_]:
        return ~np.isnan(self.large)

    @classmethod
    def of_pair(cls, pair: Pair) -> Observations:
        domains: list[str | None] = [None] * len(pair)
        domains = list(pair.domains) if pair.domains is not None else domains
        found = [features(text) for text in pair.texts]
        return cls(found, domains, pair.small, pair.large, np.ones(len(pair)))

    @classmethod
    def of_log(cls, log: Sequence[LoggedDecision], small: str, large: str) -> Observations:
        """The decisions that were open between the two and have features; the outcome of a choice includes
        what took over from it."""
        used = [
            one
            for one in log
            if one.features is not None
            and one.chances is not None
            and {small, large} <= one.chances.keys()
            and one.chosen in (small, large)
        ]
        return cls(
            [one.features for one in used if one.features is not None],
            [one.domain for one in used],
            np.array([_outcome(one, small) for one in used], float),
            np.array([_outcome(one, large) for one in used], float),
            np.array([1.0 / one.chances[one.chosen] for one in used if one.chances], float),
        )


def _outcome(one: LoggedDecision, model: str) -> float:
    return one.outcome if one.chosen == model and one.outcome is not None else float("nan")
