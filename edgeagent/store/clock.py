"""Whether the device's clock can be trusted. Retention deletes by age, and a jump ahead makes everything
old.

Many devices have no clock that runs while they are off: they boot in 1970, or at the time of the last
shutdown, and jump when the network or a user sets the clock. A clock that is behind only delays deletion.
A clock that is ahead deletes too early, so a jump ahead is trusted only if NTP confirms it, or after the
clock has run steadily for `confirm_s` of running time, counted across restarts with the monotonic clock.
"""

from __future__ import annotations

import ctypes
import json
import time
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, Protocol

from edgeagent.store import sql

# The code cannot run before it was written. Updated with each release.
BUILD_MS = int(datetime(2026, 11, 1, tzinfo=UTC).timestamp() * 1000)
CHECKPOINT = "clock"
FLOOR = "clock_floor"
_STA_UNSYNC, _STATUS_OFFSET = 0x40, 40

Doubt = Literal["before_build", "before_newest_row", "jumped", "first_start"]


@dataclass(frozen=True)
class ClockReading:
    """`since_boot_s`: monotonic, including suspend. `is_synchronised`: NTP confirms the clock."""

    wall_ms: int
    since_boot_s: float
    boot_id: str
    is_synchronised: bool


@dataclass(frozen=True)
class ClockBounds:
    """`jump_s`: largest plausible step within one boot; NTP slewing and leap seconds are far below.
    `off_s`: how long a device may have been off without raising doubt. `ahead_s`: how far rows may be
    ahead of the clock.
    """

    jump_s: float = 600.0
    off_s: float = 7 * 86_400.0
    ahead_s: float = 600.0
    confirm_s: float = 24 * 3600.0


EVERYDAY = ClockBounds()


@dataclass(frozen=True)
class LastReading:
    """The last reading of the clock. `doubt`: why it was not trusted; `even_s`: running time for which it
    has run steadily since."""

    wall_ms: int
    since_boot_s: float
    boot_id: str
    doubt: Doubt | None = None
    even_s: float = 0.0


@dataclass(frozen=True)
class ClockJudgement:
    """`doubt` None: ages may be computed with this clock. `may_redate`: NTP confirms it, so rows with
    later times are wrong. `wait_s`: running time until the doubt ends by itself, if it does."""

    doubt: Doubt | None
    may_redate: bool
    wait_s: float | None
    remember: LastReading


class Clock(Protocol):
    def read(self) -> ClockReading: ...


def judge(
    now: ClockReading,
    last: LastReading | None,
    newest_row_ms: int | None,
    bounds: ClockBounds = EVERYDAY,
) -> ClockJudgement:
    """Decide whether this clock can be trusted. Pure.

    1. before the build date: never, even if NTP confirms it
    2. synchronised by NTP: trusted
    3. behind the newest row, changed against running time since the last reading, or first seen by a
       store that has rows: doubted until it has run steadily for long enough
    """
    if now.wall_ms < BUILD_MS:
        return _judged(now, "before_build", 0.0, wait_s=None)
    if now.is_synchronised:
        return _judged(now, None, 0.0, may_redate=True)
    is_behind = newest_row_ms is not None and newest_row_ms > now.wall_ms + bounds.ahead_s * 1000
    if last is None:
        return _judged(now, "first_start" if newest_row_ms is not None else None, 0.0, bounds)
    ran_s = _even_since(now, last, bounds)
    if ran_s is None:
        return _judged(now, "jumped", 0.0, bounds)
    if last.doubt is None:
        return _judged(now, "before_newest_row" if is_behind else None, 0.0, bounds)
    even_s = last.even_s + ran_s
    is_over = even_s >= bounds.confirm_s and not is_behind
    return _judged(now, None if is_over else last.doubt, even_s, bounds)


def _judged(
    now: ClockReading, doubt: Doubt | None, even_s: float, bounds: ClockBounds | None = None,
    *, wait_s: float | None = None, may_redate: bool = False,
) -> ClockJudgement:  # fmt: skip
    """A doubt that has lasted long enough is recorded, but no longer acted on."""
    seen = LastReading(now.wall_ms, now.since_boot_s, now.boot_id, doubt, even_s if doubt else 0.0)
    if bounds is not None and doubt is not None:
        wait_s = max(0.0, bounds.confirm_s - even_s)
    is_believed = doubt is None or wait_s == 0.0
    return ClockJudgement(
        None if is_believed else doubt, may_redate, None if is_believed else wait_s, seen
    )


def _even_since(now: ClockReading, last: LastReading, bounds: ClockBounds) -> float | None:
    """Running time since the last reading; None if the wall clock advanced by a different amount."""
    wall_s = (now.wall_ms - last.wall_ms) / 1000
    if now.boot_id == last.boot_id:
        ran_s = now.since_boot_s - last.since_boot_s
        return ran_s if ran_s >= 0 and abs(wall_s - ran_s) <= bounds.jump_s else None
    off_s = wall_s - now.since_boot_s
    return now.since_boot_s if -bounds.jump_s <= off_s <= bounds.off_s else None


def remembered(conn: sql.Connection) -> LastReading | None:
    """The last reading; None before the first, or if its record is unreadable."""
    body = sql.scalar(conn, "select body from checkpoint where name = ?", (CHECKPOINT,))
    try:
        return LastReading(**json.loads(body)) if body else None
    except (ValueError, TypeError):
        return None


def remember(conn: sql.Connection, seen: LastReading) -> None:
    conn.execute(
        "insert or replace into checkpoint values (?, ?)", (CHECKPOINT, json.dumps(asdict(seen)))
    )


def floor_ms(conn: sql.Connection) -> int:
    """A time, UTC, that has certainly passed; 0 if none is known."""
    return int(sql.scalar(conn, "select body from checkpoint where name = ?", (FLOOR,)) or 0)


def set_floor(conn: sql.Connection, utc_ms: int) -> None:
    conn.execute("insert or replace into checkpoint values (?, ?)", (FLOOR, str(utc_ms)))


def floor_after(
    before_ms: int, now: ClockReading, last: LastReading | None, judgement: ClockJudgement
) -> int:
    """The floor after a reading of the clock. Pure.

    1. a trusted clock raises it; one that NTP confirms can also lower it: a clock that was ahead for a
       while, and trusted, must not expire keys for ever
    2. while the clock is doubted, the running time of the device is added
    """
    if judgement.doubt is None:
        return now.wall_ms if judgement.may_redate else max(before_ms, now.wall_ms)
    is_same_boot = last is not None and last.boot_id == now.boot_id
    ran_s = now.since_boot_s - (last.since_boot_s if last is not None and is_same_boot else 0.0)
    return before_ms + int(1000 * max(0.0, ran_s)) if before_ms else 0


def look(
    conn: sql.Connection,
    now: ClockReading,
    newest_row_ms: int | None,
    bounds: ClockBounds = EVERYDAY,
) -> tuple[ClockJudgement, int]:
    """Judge the clock by the stored readings. Returns the judgement and the floor; writes nothing."""
    last = remembered(conn)
    judgement = judge(now, last, newest_row_ms, bounds)
    return judgement, floor_after(floor_ms(conn), now, last, judgement)


def keep(conn: sql.Connection, judgement: ClockJudgement, floor: int) -> None:
    """Store a reading and the floor."""
    remember(conn, judgement.remember)
    set_floor(conn, floor)


class DeviceClock:
    """The clock of this device. Any thread."""

    def read(self) -> ClockReading:
        return ClockReading(
            wall_ms=sql.now_ms(),
            since_boot_s=time.clock_gettime(time.CLOCK_BOOTTIME),
            boot_id=sql.boot_id(),
            is_synchronised=_is_synchronised(),
        )


def _is_synchronised() -> bool:
    """Whether NTP controls the clock, according to the kernel (adjtimex) or systemd-timesyncd."""
    if Path("/run/systemd/timesync/synchronized").exists():
        return True
    buffer = ctypes.create_string_buffer(
        512
    )  # struct timex, all zero: reads without changing anything
    try:
        state = ctypes.CDLL(None, use_errno=True).adjtimex(buffer)
    except (OSError, AttributeError):
        return False
    if (
        state < 0 or ctypes.sizeof(ctypes.c_long) != 8
    ):  # forbidden by a sandbox, or another struct layout
        return False
    status = int.from_bytes(buffer.raw[_STATUS_OFFSET : _STATUS_OFFSET + 4], "little")
    return state != 5 and not status & _STA_UNSYNC
