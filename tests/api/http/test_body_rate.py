"""The rate at which bodies are read: tables over a clock of the test."""

from __future__ import annotations

from edgeagent.api.http.body_rate import BodyRate

MB = 1 << 20


def test_a_burst_is_read_at_once_and_then_everybody_waits_in_turn():
    body_rate = BodyRate(bytes_per_s=10 * MB, burst_bytes=4 * MB)
    assert [body_rate.take(MB, 100.0) for _ in range(4)] == [0.0] * 4
    assert [round(body_rate.take(MB, 100.0), 6) for _ in range(3)] == [0.1, 0.2, 0.3]


def test_the_bucket_refills_up_to_its_burst():
    body_rate = BodyRate(bytes_per_s=10 * MB, burst_bytes=4 * MB)
    assert body_rate.take(5 * MB, 0.0) == 0.1
    assert body_rate.take(0, 0.1) == 0.0, "the debt is paid"
    assert body_rate.take(MB, 0.2) == 0.0, "a tenth of a second is a megabyte"
    assert body_rate.take(4 * MB, 1000.0) == 0.0
    assert body_rate.take(MB, 1000.0) == 0.1, "an hour does not save more than a burst"


def test_a_clock_that_stands_or_goes_back_gives_nothing():
    body_rate = BodyRate(bytes_per_s=10 * MB, burst_bytes=MB)
    assert body_rate.take(MB, 50.0) == 0.0
    assert body_rate.take(MB, 40.0) == 0.1
    assert body_rate.take(MB, 40.0) == 0.2


def test_the_rate_holds_over_many_connections():
    """600 connections with a megabyte each: the last is read when the rate allows it, not before."""
    body_rate = BodyRate(bytes_per_s=24 * MB, burst_bytes=32 * MB)
    waits = [body_rate.take(MB, 0.0) for _ in range(600)]
    assert sum(wait == 0 for wait in waits) == 32
    assert waits == sorted(waits) and waits[-1] == (600 - 32) / 24
