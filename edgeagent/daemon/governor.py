"""Reads the device while engines work, and tells the pool what they may use.

The decisions are in `governor_decision`. Nothing is read, and nothing wakes up, while the daemon is idle and
cool.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from edgeagent.daemon.governor_decision import GovernorState, Readings, decide
from edgeagent.device.contention import (
    CpuTimes,
    cores_taken,
    descendants,
    read_cpu_times,
    read_pressure,
)
from edgeagent.device.power import read_power
from edgeagent.device.system_files import SystemFiles
from edgeagent.device.thermal import FORCED_CAUSES, Thermal, read_thermal
from edgeagent.pool import Pool
from edgeagent.settings.governor import GovernorSettings
from edgeagent.types.throttle import Throttle

logger = logging.getLogger(__name__)

SOON_S = 0.25  # after work has begun, and while others begin or cease to use cores
WORKING_S = 0.75
COOLING_S = 5.0
_PROCESSOR_ZONES = ("cpu", "soc", "x86_pkg", "core", "package", "cluster")


class Governor:
    """Event loop's thread only; `close()` may be called twice. `root` is where /proc and /sys are."""

    def __init__(
        self,
        pool: Pool,
        settings: GovernorSettings,
        n_cores: int,
        root: Path = Path("/"),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._pool = pool
        self._settings = settings
        self._n_cores = n_cores
        self._tree = SystemFiles(root)
        self._clock = clock
        self._cpus = sorted(os.sched_getaffinity(0))
        self._state = GovernorState()
        self._last: tuple[float, CpuTimes] | None = None
        self._is_changing = False
        self._n_thermal_events: int | None = None
        self._task: asyncio.Task[None] | None = None
        self._is_closed = False

    def wake(self) -> None:
        """Work begins: watch the device until it is done."""
        if not self._settings.enabled or self._is_closed:
            return
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._watch(), name="governor")

    async def close(self) -> None:
        self._is_closed = True
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _watch(self) -> None:
        self._last = None
        await self.sample()  # the first reading of times says nothing yet
        await asyncio.sleep(SOON_S)
        while True:
            throttle = await self.sample()
            if self._pool.is_busy:
                await asyncio.sleep(SOON_S if self._is_changing else WORKING_S)
            elif throttle.reasons:
                await asyncio.sleep(COOLING_S)
            else:
                return

    async def sample(self) -> Throttle:
        """Read the device once and apply the decision."""
        pids = [os.getpid(), *self._pool.cores.pids]
        try:
            readings = await asyncio.to_thread(self._read, self._pool.is_busy, pids)
        except Exception:  # whatever a driver shows: engines go on
            logger.exception("governor_reading_failed")
            return self._pool.cores.throttle
        decision = decide(readings, self._state, self._settings, self._n_cores)
        self._state, self._is_changing = decision.state, decision.is_changing
        before, throttle = self._pool.cores.throttle, decision.throttle
        if throttle != before:
            self._pool.cores.hold_back(throttle)
            logger.info(
                "governor reasons=%s n_threads=%s cores_taken=%s headroom_c=%s",
                ",".join(throttle.reasons) or "none",
                throttle.n_threads or self._n_cores,
                throttle.n_cores_taken,
                readings.headroom_c,
            )
        return throttle

    def _read(self, is_working: bool, pids: Sequence[int]) -> Readings:
        """Any thread."""
        now = self._clock()
        # A model that is loading, and what a worker has started, are no other programs.
        own = {*pids, *descendants(self._tree, os.getpid())}
        times = read_cpu_times(self._tree, self._cpus, own)
        taken = None
        if times is not None:
            if self._last is not None:
                then, before = self._last
                taken = cores_taken(before, times, now - then)
            self._last = (now, times)
        thermal, power = read_thermal(self._tree), read_power(self._tree)
        return Readings(
            at_s=now,
            is_working=is_working,
            cores_taken=taken,
            # Where the use of cores is known it says more: threads of our own wait for cores, too.
            cpu_pressure=read_pressure(self._tree) if times is None else None,
            headroom_c=headroom_c(thermal, self._settings.max_temp_c),
            is_throttled=self._is_throttled(thermal),
            is_on_battery=power.source == "battery",
            battery_percent=power.battery_percent,
        )

    def _is_throttled(self, thermal: Thermal) -> bool:
        """Whether the processor is slowed now, or a core has reached its limit since the last reading."""
        before, n_events = self._n_thermal_events, thermal.throttling.n_thermal_events
        self._n_thermal_events = n_events
        has_event = before is not None and n_events is not None and n_events > before
        return has_event or not set(FORCED_CAUSES).isdisjoint(thermal.throttling.now)


def headroom_c(thermal: Thermal, max_temp_c: float) -> float | None:
    """Degrees until the kernel throttles: the least of all zones that have such a point. Zones of the
    processor without one are held to `max_temp_c`. None: no zone tells."""
    found = []
    for zone in thermal.zones:
        if zone.temp_c is None:
            continue
        passive = [trip.temp_c for trip in zone.trips if trip.kind == "passive"]
        if passive:
            found.append(min(passive) - zone.temp_c)
        elif any(word in zone.kind.lower() for word in _PROCESSOR_ZONES):
            found.append(max_temp_c - zone.temp_c)
    return min(found, default=None)
