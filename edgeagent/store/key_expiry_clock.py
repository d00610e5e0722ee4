"""The time by which keys expire: the device's clock, but never before a time that has certainly passed.

An expired key must not become valid again when somebody sets the clock back, or when a device without a
battery-backed clock boots in 1970. The floor (store/clock.py) is the latest trusted time and advances with
the running time of the device. A clock that is ahead expires keys early while it is ahead, and raises the
floor only if it is trusted.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

from edgeagent.store import clock
from edgeagent.store.clock import Clock, ClockJudgement, DeviceClock
from edgeagent.store.sql import Connection, now_ms, scalar

REFRESH_S = 60.0


@dataclass(frozen=True)
class _FloorReading:
    """The floor at some moment. `kept_ms`: the floor in the store at that time."""

    floor_ms: int
    since_boot_s: float
    looked_s: float
    kept_ms: int


class KeyClock:
    """One thread, except `keep`, which runs on the writer's."""

    def __init__(self, device: Clock | None = None) -> None:
        self._device = device or DeviceClock()
        self._seen: _FloorReading | None = None

    def now_ms(self, conn: Connection) -> int:
        """UTC in milliseconds, for comparing with expiry times. Reads the store once a minute."""
        seen = self._seen
        if seen is None or time.monotonic() - seen.looked_s > REFRESH_S:
            seen = self._seen = self._look(conn)
        wall_ms, since_boot_s = self._now()
        return max(wall_ms, self._floor_ms(seen, since_boot_s))

    def keep(self, conn: Connection) -> None:
        """Store the floor, in the caller's transaction. The first floor is the clock's time, trusted or
        not, since keys are created by it."""
        reading = self._device.read()
        judgement, floor = clock.look(conn, reading, _newest_ms(conn))
        if not floor and reading.wall_ms >= clock.BUILD_MS:
            floor = reading.wall_ms
        seen = self._seen
        is_current = seen is not None and clock.floor_ms(conn) >= seen.kept_ms
        if seen is not None and is_current and not _is_vouched(judgement):
            floor = max(floor, self._floor_ms(seen, reading.since_boot_s))
        clock.keep(conn, judgement, floor)

    def forget(self) -> None:
        """Read the store again at the next use."""
        self._seen = None

    def _look(self, conn: Connection) -> _FloorReading:
        reading = self._device.read()
        kept_ms = clock.floor_ms(conn)
        judgement, floor = clock.look(conn, reading, _newest_ms(conn))
        seen = self._seen
        if seen is not None and kept_ms >= seen.kept_ms and not _is_vouched(judgement):
            floor = max(floor, self._floor_ms(seen, reading.since_boot_s))
        return _FloorReading(floor, reading.since_boot_s, time.monotonic(), kept_ms)

    def _now(self) -> tuple[int, float]:
        """Wall clock and running time. Does not ask NTP for every request."""
        if isinstance(self._device, DeviceClock):
            return now_ms(), time.clock_gettime(time.CLOCK_BOOTTIME)
        reading = self._device.read()
        return reading.wall_ms, reading.since_boot_s

    @staticmethod
    def _floor_ms(seen: _FloorReading, since_boot_s: float) -> int:
        if not seen.floor_ms:
            return 0
        return seen.floor_ms + int(1000 * max(0.0, since_boot_s - seen.since_boot_s))


def _is_vouched(judgement: ClockJudgement) -> bool:
    return judgement.doubt is None and judgement.may_redate


def _newest_ms(conn: Connection) -> int | None:
    """The time of the newest audit row: creating a key writes one, and reading it is fast enough for the
    event loop."""
    found: int | None = scalar(conn, "select utc_ms from audit order by seq desc limit 1")
    return found
