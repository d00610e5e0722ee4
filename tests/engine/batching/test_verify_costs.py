"""What steps cost by their number of tokens."""

from __future__ import annotations

import pytest

from edgeagent.engine.batching.verify_costs import (
    FIXED,
    FRESH_STEPS,
    KEPT_STEPS,
    LARGEST_FIXED,
    NEW_WEIGHT,
    OUTLIER,
    VerifyCosts,
)


def measured(**times: float) -> VerifyCosts:
    """What was observed often enough: `n4=0.02` is a step of 4 tokens in 20 ms."""
    costs = VerifyCosts()
    for _ in range(40):
        for name, took_s in times.items():
            costs.observe(int(name[1:]), took_s)
    return costs


def test_sizes_between_two_that_were_measured_lie_on_the_line():
    assert not VerifyCosts().is_known
    costs = measured(n4=0.020, n8=0.040)
    assert costs.is_known
    assert costs.seconds(4) == pytest.approx(0.020, rel=1e-3)
    assert costs.seconds(5) == pytest.approx(0.025, rel=1e-3)
    assert costs.seconds(8) == pytest.approx(0.040, rel=1e-3)


def test_beyond_the_only_size_that_was_measured_the_cost_of_weights_is_guessed():
    costs = measured(n2=0.010)
    assert costs.seconds(8) == pytest.approx(0.010 * (8 + FIXED) / (2 + FIXED), rel=1e-3)
    assert costs.seconds(1) == pytest.approx(0.010 * (1 + FIXED) / (2 + FIXED), rel=1e-3)


@pytest.mark.parametrize(
    ("times", "n", "expected"),
    [
        ({"n1": 0.010, "n2": 0.011}, 8, 0.011 * (8 + 9) / (2 + 9)),  # bound by memory
        ({"n1": 0.010, "n4": 0.009}, 8, 0.009 * (8 + LARGEST_FIXED) / (4 + LARGEST_FIXED)),
        (
            {"n1": 0.010, "n2": 0.019},
            8,
            0.019 * (8 + FIXED) / (2 + FIXED),
        ),  # an outlier, or arithmetic
        ({"n1": 0.010, "n8": 0.043}, 16, 0.043 * (16 + 1.12) / (8 + 1.12)),
    ],
)
def test_beyond_the_largest_size_the_cost_of_weights_is_that_of_the_sizes_measured(
    times, n, expected
):
    assert measured(**times).seconds(n) == pytest.approx(expected, rel=5e-3)


def test_a_size_follows_what_it_costs_now():
    costs = measured(n1=0.010)
    for _ in range(20):
        costs.observe(1, 0.030)
    assert costs.seconds(1) == pytest.approx(0.030, rel=0.01)


@pytest.mark.parametrize(("took_s", "factor"), [(9.0, OUTLIER), (0.0, 1 / OUTLIER)])
def test_one_step_that_was_held_up_counts_for_nothing_where_others_ran_and_little_else(
    took_s, factor
):
    costs = measured(n1=0.010, n4=0.020)
    costs.observe(4, took_s)
    assert costs.seconds(4) == pytest.approx(0.020, rel=1e-3)
    guess = costs.seconds(8)
    costs.observe(8, took_s)
    assert costs.seconds(8) == pytest.approx(guess * (1 + NEW_WEIGHT * (factor - 1)), rel=1e-3)


def test_a_size_is_not_fresh_until_a_step_takes_what_is_believed():
    costs = measured(n1=0.010, n4=0.020)
    costs.observe(4, 0.050)
    assert not costs.is_fresh(4)
    costs.observe(4, 0.021)
    assert costs.is_fresh(4)
    for _ in range(FRESH_STEPS + 1):
        costs.observe(1, 0.010)
    n_odd = 0
    for took_s in [0.090, 0.020, 0.020]:  # held up in the step that measures it again
        costs.observe(4, took_s)
        n_odd += not costs.is_fresh(4)
    assert 1 <= n_odd <= 2 and costs.is_fresh(4)
    assert costs.seconds(4) == pytest.approx(0.020, rel=1e-3)


def test_an_old_measurement_is_forgotten_and_the_last_one_never():
    costs = measured(n8=0.090)
    for _ in range(KEPT_STEPS + 64):
        costs.observe(1, 0.010)
    assert costs.seconds(8) == pytest.approx(0.010 * (8 + FIXED) / (1 + FIXED))
    assert costs.seconds(1) == pytest.approx(0.010, rel=1e-3)


def test_times_that_were_measured_before_count_until_steps_of_their_size_run():
    costs = VerifyCosts()
    costs.take({1: 0.010, 8: 0.030})
    assert (costs.seconds(1), costs.seconds(8)) == (0.010, 0.030)
    for _ in range(20):
        costs.observe(1, 0.020)
    costs.take({1: 0.010, 8: 0.032})
    assert costs.seconds(1) == pytest.approx(0.020, rel=0.02)
    assert costs.seconds(8) == 0.032
    for _ in range(KEPT_STEPS + 64):
        costs.observe(4, 0.015)
    assert costs.seconds(1) == 0.010


def test_a_size_that_has_not_run_for_long_is_learned_anew():
    costs = measured(n1=0.010, n4=0.020)
    assert costs.is_fresh(1) and costs.is_fresh(4) and not costs.is_fresh(2)
    for _ in range(FRESH_STEPS + 1):
        costs.observe(4, 0.020)
    assert not costs.is_fresh(1)
    costs.observe(1, 0.015)
    assert costs.seconds(1) == pytest.approx(0.010 + NEW_WEIGHT * 0.005, rel=1e-3)
    assert costs.is_fresh(1)
