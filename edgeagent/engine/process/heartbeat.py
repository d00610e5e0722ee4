"""Whether the threads beside the main one get on: what a worker's heartbeat says of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Pulse:
    """One thread's. It writes, any thread may read.

    A thread that has work is silent from the last time on that it began a job or said `beat`. One that
    waits for something with a deadline of its own goes on saying it.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._last_s: float | None = None  # None: no work

    @contextmanager
    def job(self) -> Iterator[None]:
        self._last_s = self._clock()
        try:
            yield
        finally:
            self._last_s = None

    def beat(self) -> None:
        if self._last_s is not None:
            self._last_s = self._clock()

    def silent_s(self) -> float:
        """For how long its thread has said nothing while it had work; 0 without work."""
        last_s = self._last_s
        return self._clock() - last_s if last_s is not None else 0.0
