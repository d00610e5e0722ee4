"""Signs of life of one thread."""

from __future__ import annotations

from edgeagent.worker.heartbeat import Pulse


class Clock:
    now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def test_a_thread_is_silent_from_the_beginning_of_its_job_or_its_last_sign():
    clock = Clock()
    pulse = Pulse(clock)
    assert pulse.silent_s() == 0
    pulse.beat()
    assert pulse.silent_s() == 0, "without work there is nothing to say"
    with pulse.job():
        clock.now_s += 5
        assert pulse.silent_s() == 5
        pulse.beat()
        assert pulse.silent_s() == 0
        clock.now_s += 3
        assert pulse.silent_s() == 3
    clock.now_s += 60
    assert pulse.silent_s() == 0


def test_a_job_that_fails_is_over():
    pulse = Pulse()
    try:
        with pulse.job():
            raise ValueError
    except ValueError:
        pass
    assert pulse.silent_s() == 0
