"""Signs of life of a worker's threads, which its heartbeat reports."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

from edgeagent.types.worker_config import WorkerHealth
from edgeagent.worker.protocol import Heartbeat

HEARTBEAT_S = 0.5
# While a worker has nothing to do: each heartbeat wakes two processes.
IDLE_HEARTBEAT_S = 2.0


class Pulse:
    """The signs of life of one thread. That thread writes, any thread may read.

    A thread is silent from the start of a job, or from its last `beat`, until the job ends. A thread that
    waits for something with a deadline of its own calls `beat` meanwhile.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._last_s: float | None = None  # None: no job

    @contextmanager
    def job(self) -> Iterator[None]:
        """The thread works on one job."""
        self._last_s = self._clock()
        try:
            yield
        finally:
            self._last_s = None

    def beat(self) -> None:
        """The job gets on. Does nothing outside a job."""
        if self._last_s is not None:
            self._last_s = self._clock()

    def silent_s(self) -> float:
        """Seconds since the last sign of life in the current job; 0 without a job."""
        last_s = self._last_s
        return self._clock() - last_s if last_s is not None else 0.0


def heartbeat(health: WorkerHealth, pulses: Iterable[Pulse]) -> Heartbeat[WorkerHealth]:
    """A heartbeat that reports the longest silence among the threads of `pulses`."""
    return Heartbeat(health, max((pulse.silent_s() for pulse in pulses), default=0.0))
