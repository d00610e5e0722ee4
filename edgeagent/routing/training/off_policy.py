"""Estimates what another policy would have reached on the decisions of the past, by inverse propensity.

A decision counts where the policy chooses what the log has, the more the less probable that was. IPS is
unbiased, the self-normalized form (SNIPS) has less variance. Both need a log that draws what the policy
chooses: without, there is no estimate, and this says so.

Sources: Horvitz and Thompson 1952; Swaminathan and Joachims 2015, "The self-normalized estimator for
counterfactual learning"; effective sample size: Kong 1992.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeagent.routing.score_policy import ScorePolicy
from edgeagent.routing.training.decision_log import COSTS, LoggedDecision

Floats = NDArray[np.float64]

NORMAL_95 = 1.96
MOST_UNSUPPORTED = 0.05  # share of decisions whose choice the log cannot have drawn
LEAST_EFFECTIVE = 10
FEW_EFFECTIVE = 50
FAR_WEIGHT = 4.0  # standard errors of the mean weight from 1


@dataclass(frozen=True)
class Estimate:
    """A mean with its 95% interval, from `n` decisions that are worth `n_effective` of the policy's own."""

    value: float
    low: float
    high: float
    std_error: float
    n: int
    n_effective: float


@dataclass(frozen=True)
class Replay:
    """What a policy would have done. `ips` and `snips` of the outcome are None where `refused` says why; the
    outcome of the log itself is `logged`. `costs` of a request by SNIPS, beside those of the log."""

    n: int
    n_rated: int
    n_agreeing: int
    n_unsupported: int
    share_large: float
    left_out: dict[str, int]
    ips: Estimate | None = None
    snips: Estimate | None = None
    logged: Estimate | None = None
    costs: dict[str, Estimate] = field(default_factory=dict)
    logged_costs: dict[str, Estimate] = field(default_factory=dict)
    refused: str | None = None
    warnings: list[str] = field(default_factory=list)

    def shown(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class _Judged:
    """A decision of the log and the weight that it has for the policy."""

    decision: LoggedDecision
    weight: float
    is_supported: bool


def choice_of(policy: ScorePolicy, decision: LoggedDecision) -> str:
    """The model that the policy would have chosen (routing/auto_router.py, step 4)."""
    assert decision.features is not None
    score = policy.score_features(decision.features, decision.domain)
    if not score.is_known:
        return decision.default_model
    return policy.file.large if score.benefit >= policy.file.threshold else policy.file.small


def replay(policy: ScorePolicy, log: Sequence[LoggedDecision]) -> Replay:
    """Estimate a policy on a log."""
    pair = {policy.file.small, policy.file.large}
    left_out: Counter[str] = Counter()
    judged: list[_Judged] = []
    n_large = 0
    for decision in log:
        why = _why_not(decision, pair)
        if why is not None:
            left_out[why] += 1
            continue
        assert decision.chances is not None
        choice = choice_of(policy, decision)
        n_large += choice == policy.file.large
        chance = decision.chances.get(choice, 0.0)
        weight = 1.0 / chance if choice == decision.chosen and chance > 0.0 else 0.0
        judged.append(_Judged(decision, weight, chance > 0.0))
    rated = [one for one in judged if one.decision.outcome is not None]
    found = Replay(
        n=len(judged),
        n_rated=len(rated),
        n_agreeing=sum(one.weight > 0 for one in judged),
        n_unsupported=sum(not one.is_supported for one in judged),
        share_large=n_large / len(judged) if judged else 0.0,
        left_out=dict(left_out),
    )
    return _estimated(found, judged, rated)


def _why_not(decision: LoggedDecision, pair: set[str]) -> str | None:
    """Why a decision tells nothing of the policy."""
    if decision.chances is None:
        return "decided by a rule, the route or a failure"
    if decision.features is None:
        return "kept without features"
    if not pair <= decision.chances.keys():
        return "not open between the two models of the policy"
    return None


def _estimated(found: Replay, judged: list[_Judged], rated: list[_Judged]) -> Replay:
    values = asdict(found)
    outcomes = np.array([one.decision.outcome for one in rated], float)
    weights = np.array([one.weight for one in rated])
    if len(rated):
        values["logged"] = mean_of(outcomes)
    values["refused"] = refused = _refusal(judged, rated)
    if refused is None:
        values["ips"], values["snips"] = ips(weights, outcomes), snips(weights, outcomes)
        values["warnings"] = _warnings(weights, rated)
    values["costs"], values["logged_costs"] = _costs(judged)
    return Replay(**values)


def _refusal(judged: list[_Judged], rated: list[_Judged]) -> str | None:
    if not judged:
        return (
            "No decision of the log was open between the two models of the policy and has features: route "
            "requests to `auto`, and see [routing] record."
        )
    if not rated:
        return f"None of {len(judged)} decisions has feedback: send some to `POST /v1/feedback`."
    n_missing = sum(not one.is_supported for one in rated)
    if n_missing > MOST_UNSUPPORTED * len(rated):
        return (
            f"For {n_missing} of {len(rated)} rated decisions the log can never have drawn what this policy "
            "chooses, so that it tells nothing of the outcome: set [routing] explore, for example to 0.05, "
            "and gather decisions."
        )
    effective = _effective(np.array([one.weight for one in rated]))
    if effective < LEAST_EFFECTIVE:
        return (
            f"The rated decisions are worth {effective:.1f} of this policy's own, {LEAST_EFFECTIVE} are "
            "needed: gather more, or raise [routing] explore."
        )
    return None


def _warnings(weights: Floats, rated: list[_Judged]) -> list[str]:
    found = []
    n_missing = sum(not one.is_supported for one in rated)
    if n_missing:
        found.append(
            f"For {n_missing} of {len(rated)} rated decisions the log can never have drawn the policy's "
            "choice; they count as worth nothing in IPS."
        )
    effective = _effective(weights)
    if effective < FEW_EFFECTIVE:
        found.append(f"The decisions are worth only {effective:.0f} of the policy's own.")
    mean, error = float(weights.mean()), _std_error(weights)
    if not n_missing and abs(mean - 1.0) > FAR_WEIGHT * max(error, 1e-9):
        found.append(
            f"The mean weight is {mean:.2f} and should be 1: whether an answer was rated depends on the "
            "model, or the probabilities are not those of the log. Trust SNIPS before IPS."
        )
    return found


def ips(weights: Floats, values: Floats) -> Estimate:
    """Inverse propensity: the mean of weight times value."""
    products = weights * values
    return _estimate(float(products.mean()), _std_error(products), weights)


def snips(weights: Floats, values: Floats) -> Estimate:
    """Self-normalized: the mean weighted by `weights`; its error by the delta method."""
    total = float(weights.sum())
    value = float(weights @ values) / total
    error = math.sqrt(float((weights**2) @ (values - value) ** 2)) / total
    return _estimate(value, error, weights)


def mean_of(values: Floats) -> Estimate:
    return _estimate(float(values.mean()), _std_error(values), np.ones(len(values)))


def _costs(judged: list[_Judged]) -> tuple[dict[str, Estimate], dict[str, Estimate]]:
    """Of the policy and of the log, each cost where it is known; none of the policy without support."""
    policy: dict[str, Estimate] = {}
    log: dict[str, Estimate] = {}
    for name in COSTS:
        known = [one for one in judged if one.decision.costs and name in one.decision.costs]
        if not known:
            continue
        values = np.array([one.decision.costs[name] for one in known if one.decision.costs])
        weights = np.array([one.weight for one in known])
        log[name] = mean_of(values)
        n_missing = sum(not one.is_supported for one in known)
        if n_missing <= MOST_UNSUPPORTED * len(known) and _effective(weights) >= LEAST_EFFECTIVE:
            policy[name] = snips(weights, values)
    return policy, log


def _estimate(value: float, error: float, weights: Floats) -> Estimate:
    width = NORMAL_95 * error
    return Estimate(value, value - width, value + width, error, len(weights), _effective(weights))


def _effective(weights: Floats) -> float:
    """How many decisions of the policy's own the weighted ones are worth."""
    squares = float(weights @ weights)
    return float(weights.sum()) ** 2 / squares if squares else 0.0


def _std_error(values: Floats) -> float:
    n = len(values)
    return float(values.std(ddof=1)) / math.sqrt(n) if n > 1 else math.inf
