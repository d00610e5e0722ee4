"""How well policies route between two models, on texts with known outcomes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from edgeagent.errors import InvalidParameter
from edgeagent.routing.training.outcome_files import Pair
from edgeagent.routing.training.routellm_measures import (
    Bin,
    Curve,
    apgr,
    cpt,
    curve_of,
    ece,
    reliability,
)
from edgeagent.routing.training.trainer import TextMatrix, folds, train

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Folds = Literal["random", "files"]

N_FOLDS = 5
N_BOOTSTRAP = 200
TIE_BREAK = 1e-6  # the oracle has few different scores, and thresholds need an order
INTERVAL = (2.5, 97.5)  # percentiles


@dataclass(frozen=True)
class Scores:
    """What a policy says of each text: `benefit` orders them, `p_small` is the probability that the small
    model is right (None: the policy has none)."""

    benefit: Floats
    p_small: Floats | None = None


@dataclass(frozen=True)
class Evaluation:
    """The measures of all policies, the curves of those that have one, and the bins of the learned one."""

    measures: dict[str, dict[str, Any]]
    curves: dict[str, Curve]
    bins: list[Bin]


def learned_by_folds(pair: Pair, kind: Folds, seed: int) -> Scores:
    """Scores of each text by a policy that was trained on the other folds. Raises: InvalidParameter."""
    texts = TextMatrix.of(pair.texts)
    benefit, p_small = np.zeros(len(pair)), np.zeros(len(pair))
    for inside, outside in _folds(pair, kind, seed):
        groups = pair.groups[inside] if kind == "files" else None
        trained = train(texts.take(inside), pair.small[inside], pair.large[inside], seed, groups)
        unseen = texts.take(outside)
        benefit[outside], p_small[outside] = trained.benefit.scores(unseen), trained.chances(unseen)
    return Scores(benefit, p_small)


def learned_elsewhere(training: Pair, pair: Pair, seed: int) -> Scores:
    """Scores by a policy that was trained on other data."""
    texts = TextMatrix.of(training.texts)
    trained = train(texts, training.small, training.large, seed, training.groups)
    texts = TextMatrix.of(pair.texts)
    return Scores(trained.benefit.scores(texts), trained.chances(texts))


def _folds(pair: Pair, kind: Folds, seed: int) -> list[tuple[Ints, Ints]]:
    if kind == "random":
        return folds(len(pair), N_FOLDS, seed)
    n_files = len(pair.group_names)
    if n_files < 2:
        raise InvalidParameter(
            "Folds of files need at least two files: give more with --data, or use --folds random."
        )
    found = []
    for _, outside in folds(n_files, min(N_FOLDS, n_files), seed):
        is_outside = np.isin(pair.groups, outside)
        found.append((np.flatnonzero(~is_outside), np.flatnonzero(is_outside)))
    return found


def evaluate(pair: Pair, learned: Scores, seed: int = 0) -> Evaluation:
    """Measure the learned policy against the baselines."""
    rng = np.random.default_rng(seed)
    n_chars = np.array([float(len(text)) for text in pair.texts])
    policies = {
        "learned": learned,
        "random": Scores(rng.random(len(pair)), np.full(len(pair), 0.5)),
        "length": Scores(n_chars),
        "oracle": Scores(pair.large - pair.small + TIE_BREAK * rng.random(len(pair))),
    }
    resamples = [rng.integers(0, len(pair), len(pair)) for _ in range(N_BOOTSTRAP)]
    measures: dict[str, dict[str, Any]] = {}
    curves: dict[str, Curve] = {}
    for name, scores in policies.items():
        curves[name] = curve_of(scores.benefit, pair.small, pair.large)
        measures[name] = _measures(scores, pair, resamples)
    for one in measures.values():
        one["oracle_gap"] = measures["oracle"]["apgr"] - one["apgr"]
    small, large = float(pair.small.mean()), float(pair.large.mean())
    measures["always_small"] = {"quality": small, "share_large": 0.0, "apgr": 0.0}
    measures["always_large"] = {"quality": large, "share_large": 1.0, "apgr": 1.0}
    if pair.middle is not None:
        middle = float(pair.middle.mean())
        measures["middle"] = {"quality": middle, "recovered": (middle - small) / (large - small)}
    assert learned.p_small is not None
    return Evaluation(measures, curves, reliability(learned.p_small, pair.small))


def _measures(scores: Scores, pair: Pair, resamples: list[Ints]) -> dict[str, Any]:
    def measured(of: Callable[[Ints], float], name: str) -> dict[str, Any]:
        drawn = [of(rows) for rows in resamples]
        low, high = np.percentile(drawn, INTERVAL)
        return {name: of(np.arange(len(pair))), f"{name}_ci": [float(low), float(high)]}

    def by_curve(measure: Callable[[Curve, Floats, Floats], float]) -> Callable[[Ints], float]:
        def of(rows: Ints) -> float:
            small, large = pair.small[rows], pair.large[rows]
            return measure(curve_of(scores.benefit[rows], small, large), small, large)

        return of

    found = measured(by_curve(apgr), "apgr")
    found |= measured(by_curve(partial(cpt, recovered=0.5)), "cpt50")
    found |= measured(by_curve(partial(cpt, recovered=0.8)), "cpt80")
    found["area"] = curve_of(scores.benefit, pair.small, pair.large).area
    chances = scores.p_small
    if chances is not None:
        found |= measured(lambda rows: ece(chances[rows], pair.small[rows]), "ece")
    return found
