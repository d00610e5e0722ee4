"""How long requests will wait, by a clock that the test moves."""

from __future__ import annotations

import pytest

from edgeagent.engine.batching.wait_estimate import MARGIN, MAX_RETRY_AFTER_S, WaitEstimate
from tests.engine.batching.crowd import N_SLOTS, QUEUE_LIMIT, Crowd


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def busy(estimate: WaitEstimate, clock: Clock, per_s: float, seconds: float) -> None:
    """Steps of 50 ms that get `per_s` tokens done in a second."""
    for _ in range(int(seconds / 0.05)):
        clock.now += 0.05
        estimate.count(round(per_s * 0.05))


def test_the_rate_is_that_of_the_steps_and_follows_a_device_that_slows_down():
    clock = Clock()
    estimate = WaitEstimate(clock)
    assert estimate.tokens_per_s is None and estimate.seconds(100) is None
    busy(estimate, clock, 400, 2)
    assert estimate.tokens_per_s == pytest.approx(400, rel=0.02)
    assert estimate.seconds(800) == pytest.approx(2, rel=0.02)
    busy(estimate, clock, 100, 30)
    assert estimate.tokens_per_s == pytest.approx(100, rel=0.05)


def test_idle_time_is_not_taken_for_slowness():
    clock = Clock()
    estimate = WaitEstimate(clock)
    busy(estimate, clock, 400, 2)
    for _ in range(5):
        clock.now += 100
        busy(estimate, clock, 400, 1)
    assert estimate.tokens_per_s == pytest.approx(400, rel=0.02)


def test_refused_requests_are_told_times_as_far_apart_as_places_become_free():
    clock = Clock()
    estimate = WaitEstimate(clock)
    busy(estimate, clock, 100, 5)
    for _ in range(100):
        estimate.end(300, 100)  # one place in 4 s
    place_s = 4 * MARGIN
    told = [estimate.retry_after_s("a") for _ in range(5)]
    assert told == pytest.approx([n * place_s for n in (1, 2, 3, 4, 5)], rel=0.05)
    assert estimate.retry_after_s("b") == pytest.approx(place_s, rel=0.05), "a row for each key"
    clock.now += 10
    assert estimate.retry_after_s("a") == pytest.approx(6 * place_s - 10, rel=0.05), (
        "time has passed"
    )
    clock.now += 1000
    assert estimate.retry_after_s("a") == pytest.approx(place_s, rel=0.05)


def test_nobody_is_told_more_than_the_bound_and_nobody_less_than_a_second():
    clock = Clock()
    estimate = WaitEstimate(clock)
    assert estimate.retry_after_s("a") == 1
    busy(estimate, clock, 20, 5)
    assert max(estimate.retry_after_s("a") for _ in range(200)) == MAX_RETRY_AFTER_S
    busy(estimate, clock, 100_000, 30)
    assert estimate.retry_after_s("c") == 1


def test_places_are_kept_for_those_that_are_about_to_come_back():
    clock = Clock()
    estimate = WaitEstimate(clock)
    busy(estimate, clock, 100, 5)
    for _ in range(100):
        estimate.end(300, 100)  # one place in 4 s
    told = [estimate.retry_after_s("a") for _ in range(3)]
    assert estimate.n_due("a") == 0
    clock.now += told[0]
    assert estimate.n_due("a") == 1 and estimate.n_due("b") == 0
    estimate.came_back("a")
    assert estimate.n_due("a") == 0
    clock.now += told[1] - told[0] + 1
    assert estimate.n_due("a") == 1, "not there yet"
    clock.now += 3
    assert estimate.n_due("a") <= 1, "it does not come any more; the third may"


def test_one_that_came_back_and_is_refused_again_is_told_the_next_place():
    clock = Clock()
    estimate = WaitEstimate(clock)
    busy(estimate, clock, 100, 5)
    for _ in range(100):
        estimate.end(300, 100)
    place_s = 4 * MARGIN
    assert [estimate.retry_after_s("a") for _ in range(4)][-1] == pytest.approx(
        4 * place_s, rel=0.05
    )
    assert estimate.retry_after_s("a", has_waited=True) == pytest.approx(place_s, rel=0.05)
    assert estimate.retry_after_s("a") == pytest.approx(5 * place_s, rel=0.05)


def test_ones_that_come_back_while_others_are_due_are_told_different_places():
    clock = Clock()
    estimate = WaitEstimate(clock)
    busy(estimate, clock, 100, 5)
    for _ in range(100):
        estimate.end(300, 100)
    place_s = 4 * MARGIN
    clock.now += estimate.retry_after_s("a")
    assert estimate.n_due("a") == 1, "it has not come yet"
    assert estimate.retry_after_s("a", has_waited=True) == pytest.approx(2 * place_s, rel=0.05)


@pytest.mark.parametrize(
    "rate, share",
    [
        (lambda s: 48.0, 0.84),
        (lambda s: 20.0 if s >= 0 else 48.0, 0.76),  # the crowd slows the engine down
        (lambda s: 4.0, 0.97),  # long answers
    ],
)
def test_a_crowd_is_told_when_it_will_be_let_in(rate, share: float):
    """200 clients for 4 slots who come back when they were told."""
    crowd = Crowd(200, rate)
    crowd.run(100)
    assert crowd.share_right >= share
    assert crowd.longest_queue <= QUEUE_LIMIT
    assert crowd.n_answered >= 0.9 * 100 * rate(0) - N_SLOTS, (
        "no slot stays empty for those to come"
    )
