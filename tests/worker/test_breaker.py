from __future__ import annotations

import pytest

from edgeagent.worker.breaker import MAX_DELAY_S, Breaker


def test_it_opens_after_the_limit_and_closes_when_the_oldest_death_leaves_the_window():
    breaker = Breaker(limit=3, window_s=60)
    for at in (0, 10, 20):
        assert breaker.closes_in_s(at) is None
        breaker.record_death(at)
    assert breaker.closes_in_s(21) == pytest.approx(39)
    assert breaker.closes_in_s(61) is None


def test_an_answer_between_deaths_keeps_it_closed():
    breaker = Breaker(limit=3, window_s=60)
    for at in range(50):
        breaker.record_death(at)
        breaker.record_answer()
        assert breaker.closes_in_s(at) is None
        assert breaker.delay_s(at) == 0


def test_the_delay_doubles_up_to_a_bound():
    breaker = Breaker(limit=100, window_s=1000)
    delays = []
    for at in range(12):
        breaker.record_death(at)
        delays.append(breaker.delay_s(at))
    assert delays[:4] == [0, 0.25, 0.5, 1.0]
    assert delays[-1] == MAX_DELAY_S
