"""Estimates of another policy from logs of which the truth is known."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest

from edgeagent.routing.score_policy import PolicyFile, ScorePolicy
from edgeagent.routing.training.decision_log import LoggedDecision, outcome_of
from edgeagent.routing.training.off_policy import choice_of, ips, replay, snips
from edgeagent.routing.training.outcome_files import Pair
from edgeagent.routing.training.trainer import TextMatrix, policy_file, train
from tests.routing.routes import LARGE, SMALL
from tests.routing.training.logs import decision, log
from tests.routing.training.texts import outcomes

EVEN = {SMALL: 0.5, LARGE: 0.5}
ONE = {SMALL: 1.0, LARGE: 0.0}


@pytest.fixture(scope="module")
def policy() -> ScorePolicy:
    """Hard texts go to the large model."""
    texts, small, large = zip(*outcomes(400, 9), strict=True)
    quality = np.array(small, float), np.array(large, float)
    pair = Pair(list(texts), np.zeros(400, int), ["made"], *quality, SMALL, LARGE)
    matrix = TextMatrix.of(pair.texts)
    return ScorePolicy(
        policy_file(
            (pair.small_name, pair.large_name), matrix, train(matrix, pair.small, pair.large), 0.5
        )
    )


def truth(policy: ScorePolicy, n: int, seed: int) -> float:
    """The quality of the policy on the same texts, of which both outcomes are known here."""
    rows = outcomes(n, seed)
    chosen = (choice_of(policy, decision(text, SMALL, EVEN, None)) for text, _, _ in rows)
    return float(
        np.mean(
            [
                large if to == LARGE else small
                for to, (_, small, large) in zip(chosen, rows, strict=True)
            ]
        )
    )


@pytest.mark.parametrize("explore", [0.2, 1.0])
def test_the_truth_is_within_the_interval_and_closer_with_more_exploration(policy, explore):
    found = replay(policy, log(800, explore))
    real = truth(policy, 800, 0)
    assert found.refused is None and found.ips and found.snips and found.logged
    for one in (found.ips, found.snips):
        assert abs(one.value - real) < 4 * one.std_error and one.std_error < 0.1
    assert found.logged.value < real - 0.1, "the log was worse than the policy is"
    assert found.n_agreeing < found.n == found.n_rated == 800
    assert found.snips.n_effective < 800 and found.costs["tokens"].value > 20
    assert found.logged_costs["tokens"].n_effective == 800


def test_the_intervals_hold_the_truth_as_often_as_they_say(policy):
    n_inside = 0
    for seed in range(10):
        found = replay(policy, log(200, 0.5, seed=seed))
        assert found.snips is not None
        n_inside += found.snips.low <= truth(policy, 200, seed) <= found.snips.high
    assert n_inside >= 8


def test_the_policy_of_the_log_itself_gets_what_the_log_has(policy):
    always_small = ScorePolicy(_with(policy, threshold=1e9))
    found = replay(always_small, log(500, 0.0))
    assert found.refused is None and found.ips and found.snips and found.logged
    assert found.ips.value == pytest.approx(found.logged.value) == pytest.approx(found.snips.value)
    assert (found.n_agreeing, found.n_unsupported, found.warnings) == (500, 0, [])


REFUSED = [
    (log(500, 0.0), "explore"),
    (log(500, 0.5, rated=0.0), "feedback"),
    (log(12, 1.0), "worth"),
    ([], "No decision"),
    ([decision("set a timer", SMALL, None, 1.0)], "No decision"),
]


@pytest.mark.parametrize(
    ("given", "why"), REFUSED, ids=lambda value: value if isinstance(value, str) else ""
)
def test_a_log_that_cannot_tell_is_refused_with_a_way_out(policy, given, why):
    found = replay(policy, given)
    assert found.refused is not None and why in found.refused
    assert found.ips is found.snips is None


def test_what_tells_nothing_is_counted_by_reason(policy):
    bare = LoggedDecision(SMALL, SMALL, SMALL, "default", chances=EVEN)
    other = decision("x", SMALL, {SMALL: 0.5, "other": 0.5}, 1.0)
    found = replay(policy, [*log(200, 1.0), bare, other, decision("x", SMALL, None, 1.0)])
    assert found.n == 200 and sum(found.left_out.values()) == 3 == len(found.left_out)


def test_ratings_that_depend_on_the_model_are_noticed(policy):
    skewed = [
        one if one.chosen == SMALL or number % 5 == 0 else decision("x", LARGE, one.chances, None)
        for number, one in enumerate(log(1000, 0.5))
    ]
    found = replay(policy, skewed)
    assert any("mean weight" in warning for warning in found.warnings)


def test_the_default_model_answers_what_the_policy_does_not_know(policy):
    odd = decision("qzx vvkw jjq wwz xxq", LARGE, EVEN, 1.0)
    assert choice_of(policy, odd) == SMALL


def test_the_estimators_by_hand():
    weights, values = np.array([2.0, 0.0, 4.0, 0.0]), np.array([1.0, 1.0, 0.5, 0.0])
    assert ips(weights, values).value == pytest.approx((2 + 2) / 4)
    assert snips(weights, values).value == pytest.approx((2 + 2) / 6)
    assert snips(weights, values).n_effective == pytest.approx(36 / 20)


OUTCOMES = [
    ((1, None, False), 1.0), ((-1, None, False), 0.0), ((0, None, False), None), ((None, None, False), None),
    ((0, None, True), 0.0), ((1, None, True), 1.0), ((-1, "partly", False), 0.5), ((0, "right", True), 1.0),
    ((1, "wrong", False), 0.0),
]  # fmt: skip


@pytest.mark.parametrize(("given", "outcome"), OUTCOMES)
def test_feedback_becomes_an_outcome(given, outcome):
    assert outcome_of(*given) == outcome


def _with(policy: ScorePolicy, **fields: float) -> PolicyFile:
    return msgspec.structs.replace(policy.file, **fields)
