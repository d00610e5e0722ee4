"""A token bucket, by properties over a clock of the test."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from edgeagent.api.http.token_bucket import TokenBucket

STEPS = st.lists(st.tuples(st.floats(-10, 10), st.floats(0, 50)), max_size=50)


@given(STEPS)
def test_it_never_holds_more_than_its_capacity_and_gives_no_more_than_it_gained(steps):
    now_s = 0.0
    bucket = TokenBucket(20, 4, lambda: now_s)
    n_taken, latest_s, gained_s = 0.0, 0.0, 0.0
    for change_s, amount in steps:
        now_s += change_s
        gained_s += max(0.0, now_s - latest_s)
        latest_s = now_s
        assert bucket.level <= 20
        if bucket.wait_s(amount) == 0:
            bucket.take(amount)
            n_taken += amount
        assert n_taken <= 20 + 4 * gained_s + 1e-6


def test_a_charge_after_the_fact_makes_it_negative_and_is_waited_for():
    bucket = TokenBucket(20, 4, lambda: 0.0)
    assert bucket.is_full and bucket.wait_s(20) == 0
    bucket.take(30)
    assert bucket.level == -10 and not bucket.is_full
    assert bucket.wait_s(0) == 2.5 and bucket.wait_s(10) == 5
