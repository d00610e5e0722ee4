"""What the engine client makes of a heartbeat that reports a silent thread."""

from __future__ import annotations

import time

from edgeagent.engine.client import EngineClient
from edgeagent.types.engine_config import EngineConfig, EngineHealth
from edgeagent.worker import frames
from edgeagent.worker.heartbeat import Pulse, heartbeat
from tests.worker.test_heartbeat import Clock


async def test_a_worker_whose_tokenizing_hangs_looks_as_silent_as_one_that_hangs():
    clock = Clock()
    pulses = [Pulse(clock), Pulse(clock)]
    client = EngineClient(EngineConfig(model_id="m", path=""))
    with pulses[1].job():
        clock.now_s += 42
        client.data_received(frames.encode(heartbeat(EngineHealth(n_steps=3), pulses)))
    assert client.health.n_steps == 3
    assert 41 < time.monotonic() - client.last_beat_s < 43 + 60
    client.data_received(frames.encode(heartbeat(EngineHealth(), pulses)))
    assert time.monotonic() - client.last_beat_s < 41
