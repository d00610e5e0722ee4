"""What an answer has cost in energy: the device's use from its beginning to its end, as measured, shared
evenly with what ran beside it.

Where a budget needs it, what measures energy (device/energy.py) is read while requests run and shortly
after, beside the event loop. Between two readings the power counts as even. Where nothing measures,
nothing is known.
"""

from __future__ import annotations

import asyncio
import logging
import time
from bisect import bisect_left
from collections import deque
from collections.abc import Callable
from operator import itemgetter

from edgeagent.device.energy import EnergyReading, read_energy
from edgeagent.device.system_files import SystemFiles

logger = logging.getLogger(__name__)

STEP_S = 0.25
LINGER_S = 2.0  # goes on reading after the last request
MAX_STEPS = 4096  # of readings that are kept: 17 minutes
MAX_GAP_S = 2.0  # by which a span may go beyond the readings


def source_of(reading: EnergyReading) -> str | None:
    """What measures: "rapl", "ina" or "battery"; None for nothing."""
    if reading.joules is not None:
        return "rapl"
    return next((name for name in ("ina", "battery") if name in reading.watts), None)


class EnergyHistory:
    """Joules that the device has used since the first reading, by time."""

    def __init__(self) -> None:
        self._steps: deque[tuple[float, float]] = deque(maxlen=MAX_STEPS)
        self._last: EnergyReading | None = None
        self.source: str | None = None

    def add(self, at_s: float, reading: EnergyReading) -> None:
        """A counter that has begun anew, another source or a long pause begins the history anew."""
        source, last = source_of(reading), self._last
        then_s, total = self._steps[-1] if self._steps else (at_s, 0.0)
        used = 0.0
        if source is not None and source == self.source and last is not None:
            if source == "rapl":
                used = (reading.joules or 0.0) - (last.joules or 0.0)
            else:
                used = (at_s - then_s) * (reading.watts[source] + last.watts[source]) / 2
        if source != self.source or used < 0 or at_s - then_s > MAX_GAP_S:
            self._steps.clear()
            total = used = 0.0
        self.source, self._last = source, reading
        if source is not None:
            self._steps.append((at_s, total + used))

    def used(self, from_s: float, until_s: float) -> float | None:
        """Joules of a span of time; None where it was not measured."""
        steps = self._steps
        if len(steps) < 2 or until_s <= from_s:
            return None
        if from_s < steps[0][0] - MAX_GAP_S or until_s > steps[-1][0] + MAX_GAP_S:
            return None
        return self._at(until_s) - self._at(from_s)

    def _at(self, at_s: float) -> float:
        """By a line between two readings; before the first and behind the last one it goes on."""
        steps = self._steps
        n = min(max(bisect_left(steps, at_s, key=itemgetter(0)), 1), len(steps) - 1)
        (then_s, before), (now_s, after) = steps[n - 1], steps[n]
        return before + (at_s - then_s) * (after - before) / max(now_s - then_s, 1e-6)


class EnergyWatch:
    """Event loop's thread only. `is_busy`: whether a request runs."""

    def __init__(self, tree: SystemFiles, is_busy: Callable[[], bool]) -> None:
        self.history = EnergyHistory()
        self._first_source = source_of(
            read_energy(tree)
        )  # once: later ones are read beside the loop
        self._tree = tree
        self._is_busy = is_busy
        self._until_s = 0.0
        self._task: asyncio.Task[None] | None = None

    @property
    def source(self) -> str | None:
        """What measures energy here."""
        return self.history.source or self._first_source

    def begin(self) -> None:
        """A request is about to run. Without an event loop nothing is measured."""
        self._until_s = time.monotonic() + LINGER_S
        if self._task is not None and not self._task.done():
            return
        try:
            self._task = asyncio.get_running_loop().create_task(self._read(), name="route-energy")
        except RuntimeError:
            return

    async def _read(self) -> None:
        try:
            while self._is_busy() or time.monotonic() < self._until_s:
                reading = await asyncio.to_thread(read_energy, self._tree)
                self.history.add(time.monotonic(), reading)
                if source_of(reading) is None:
                    return
                await asyncio.sleep(STEP_S)
        except Exception:  # whatever a driver shows: routes go on without
            logger.exception("route_energy_reading_failed")

    def used(self, seconds: float, n_sharing: int) -> float | None:
        """Joules of a request that ends now and took so many seconds, beside others."""
        now = time.monotonic()
        joules = self.history.used(now - seconds, now)
        return joules / n_sharing if joules is not None else None
