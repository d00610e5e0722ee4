"""How many drafted tokens pay, by what steps cost and how likely the tokens are."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeagent.engine.batching.draft_lengths import KEPT_SPEED, MARGIN, choose_lengths

FREE = dict.fromkeys(range(1, 100), 0.01)  # memory-bound: more tokens cost nothing
LINEAR = {n: 0.01 * n for n in range(1, 100)}  # bound by arithmetic, and nothing to gain
# 135M Q4_1 on 2 cores of a Zen 4 server.
MEASURED = {1: 10.2, 2: 17.0, 3: 21.7, 4: 26.0, 5: 35.9, 6: 37.5, 7: 44.6, 8: 44.1, 9: 54.4, 10: 56.0,
            11: 59.0, 12: 62.5, 13: 68.0, 14: 73.0, 15: 78.0, 16: 82.7}  # fmt: skip


def falling(rate: float, n: int = 15) -> list[float]:
    return [rate ** (i + 1) for i in range(n)]


@pytest.mark.parametrize(
    ("step_s", "chances", "lengths"),
    [
        (FREE, [falling(0.5, 6)], [6]),
        (FREE, [falling(0.5, 3), falling(0.9, 2)], [3, 2]),
        (LINEAR, [falling(0.99)], [0]),
        (FREE, [[0.04]], [0]),  # less than the margin
        (FREE, [[]], [0]),
        (FREE, [[], falling(0.9, 2)], [0, 2]),
        (MEASURED, [falling(0.3)], [0]),
        (MEASURED, [falling(0.6)], [0]),
        (MEASURED, [falling(0.95)], [7]),  # not 8: a step of 9 tokens is dear here
        (MEASURED, [falling(1.0)], [15]),
    ],
)
def test_the_lengths_give_the_most_tokens_per_second(step_s, chances, lengths):
    found = choose_lengths(chances, len(chances), step_s.__getitem__, n_most=15, limit_s=1e9)
    assert found == lengths


def test_the_likeliest_tokens_come_first_where_there_is_room_for_few():
    chances = [falling(0.9), falling(0.5), falling(0.8)]
    found = choose_lengths(chances, 3, FREE.__getitem__, n_most=5, limit_s=1)
    assert found == [4, 0, 1]  # 0.9, 0.81, 0.8, 0.73, 0.66


def test_a_step_gets_no_longer_than_the_limit():
    chances = [falling(1.0)]
    assert choose_lengths(chances, 1, MEASURED.__getitem__, n_most=15, limit_s=16.0) == [3]
    assert choose_lengths(chances, 1, MEASURED.__getitem__, n_most=0, limit_s=1e9) == [0]


def test_an_answer_without_a_draft_keeps_its_speed():
    """Three answers: drafts for one would make the step half as long again, and all of them faster in sum."""
    step = {n: 0.010 + 0.001 * n for n in range(1, 40)}
    chances = [falling(1.0), [], []]
    (found, *_) = choose_lengths(chances, 3, step.__getitem__, n_most=15, limit_s=1)
    assert 0 < found < 15
    assert step[3] / step[3 + found] >= KEPT_SPEED
    alone = choose_lengths([falling(1.0)], 1, step.__getitem__, n_most=15, limit_s=1)
    assert alone == [15]


rows = st.lists(st.lists(st.floats(0, 1), max_size=6).map(lambda row: sorted(row, reverse=True)),
                min_size=1, max_size=4)  # fmt: skip


@given(rows, st.lists(st.floats(0, 1), min_size=40, max_size=40), st.integers(0, 12))
def test_what_is_chosen_keeps_every_bound(chances, growth, n_most):
    times = [0.01]
    for more in growth:
        times.append(times[-1] * (1 + more / 4))
    n = len(chances)
    found = choose_lengths(chances, n, times.__getitem__, n_most=n_most, limit_s=0.05)
    assert all(0 <= length <= len(row) for length, row in zip(found, chances, strict=True))
    assert sum(found) <= n_most
    if not any(found):
        return
    took_s, alone_s = times[n + sum(found)], times[n]
    expected = [1 + sum(row[:length]) for row, length in zip(chances, found, strict=True)]
    assert took_s - alone_s <= 0.05
    assert sum(expected) / took_s > MARGIN * n / alone_s
    assert min(expected) / took_s >= KEPT_SPEED / alone_s * (1 - 1e-9)
