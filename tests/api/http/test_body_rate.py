"""The rate at which bodies are read: tables over a clock of the test."""

from __future__ import annotations

from edgeagent.api.http.body_rate import BodyRate

MB = 1 << 20


class Clock:
    def __init__(self, s: float = 0.0) -> None:
        self.s = s

    def __call__(self) -> float:
        return self.s


def taken(body_rate: BodyRate, clock: Clock, n_bytes: int, at_s: float) -> float:
    clock.s = at_s
    return body_rate.take(n_bytes)


def test_a_burst_is_read_at_once_and_then_everybody_waits_in_turn():
    clock = Clock()
    body_rate = BodyRate(bytes_per_s=10 * MB, burst_bytes=4 * MB, clock=clock)
    assert [taken(body_rate, clock, MB, 100.0) for _ in range(4)] == [0.0] * 4
    assert [round(taken(body_rate, clock, MB, 100.0), 6) for _ in range(3)] == [0.1, 0.2, 0.3]


def test_the_bucket_refills_up_to_its_burst():
    clock = Clock()
    body_rate = BodyRate(bytes_per_s=10 * MB, burst_bytes=4 * MB, clock=clock)
    assert taken(body_rate, clock, 5 * MB, 0.0) == 0.1
    assert taken(body_rate, clock, 0, 0.1) == 0.0, "the debt is paid"
    assert taken(body_rate, clock, MB, 0.2) == 0.0, "a tenth of a second is a megabyte"
    assert taken(body_rate, clock, 4 * MB, 1000.0) == 0.0
    assert taken(body_rate, clock, MB, 1000.0) == 0.1, "an hour does not save more than a burst"


def test_a_clock_that_stands_or_goes_back_gives_nothing():
    clock = Clock(50.0)
    body_rate = BodyRate(bytes_per_s=10 * MB, burst_bytes=MB, clock=clock)
    assert taken(body_rate, clock, MB, 50.0) == 0.0
    assert taken(body_rate, clock, MB, 40.0) == 0.1
    assert taken(body_rate, clock, MB, 40.0) == 0.2


def test_the_rate_holds_over_many_connections():
    """600 connections with a megabyte each: the last is read when the rate allows it, not before."""
    clock = Clock()
    body_rate = BodyRate(bytes_per_s=24 * MB, burst_bytes=32 * MB, clock=clock)
    waits = [taken(body_rate, clock, MB, 0.0) for _ in range(600)]
    assert sum(wait == 0 for wait in waits) == 32
    assert waits == sorted(waits) and waits[-1] == (600 - 32) / 24
