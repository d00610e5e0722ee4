"""The start of a worker process, in this process."""

from __future__ import annotations

import signal
import socket
import time

import msgspec
import pytest

from edgeagent.types.worker_config import WorkerConfig
from edgeagent.worker import entry, frames, log_format, protocol
from edgeagent.worker.channel import Channel

LOAD = protocol.Load(WorkerConfig(model_id="m", path="/m"), "warning")


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The levels that logs were started with; signals keep their handlers."""
    levels: list[str] = []
    monkeypatch.setattr(signal, "signal", lambda *given: None)
    monkeypatch.setattr(log_format, "start", lambda level, format: levels.append(level))
    return levels


def test_loading_is_timed_from_the_order_to_load(started: list[str]):
    ours, theirs = socket.socketpair()
    times: list[float] = []

    def decode(body: bytes) -> protocol.Load[WorkerConfig]:
        times.append(time.monotonic())
        return msgspec.msgpack.decode(body, type=protocol.Load[WorkerConfig])

    def load(channel: Channel, config: WorkerConfig, pid: int, started_s: float) -> entry.Worker:
        assert (config, pid) == (LOAD.config, 7)
        times.append(started_s)
        channel._socket.close()
        raise SystemExit

    with ours:
        ours.sendall(frames.encode(LOAD))
        with pytest.raises(SystemExit):
            entry.run(["worker", str(theirs.detach()), "7"], decode, load)
    assert len(times) == 2 and times == sorted(times)
    assert started == ["warning"]
