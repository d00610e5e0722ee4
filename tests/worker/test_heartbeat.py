"""What a heartbeat says of the threads beside the main one."""

from __future__ import annotations

import time

from edgeagent.engine.client import EngineClient
from edgeagent.types.engine import EngineConfig, EngineHealth
from edgeagent.worker import frames
from edgeagent.worker.heartbeat import Pulse, heartbeat


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


async def test_a_worker_whose_tokenizing_hangs_looks_as_silent_as_one_that_hangs():
    clock = Clock()
    pulses = [Pulse(clock), Pulse(clock)]
    client = EngineClient(EngineConfig(model_id="m", path=""))
    with pulses[1].job():
        clock.now_s += 42
        client.data_received(frames.encode(heartbeat(EngineHealth(n_steps=3), pulses)))
    assert client.health.n_steps == 3
    assert 41 < time.monotonic() - client.last_beat_s < 43 + 5
    client.data_received(frames.encode(heartbeat(EngineHealth(), pulses)))
    assert time.monotonic() - client.last_beat_s < 5
