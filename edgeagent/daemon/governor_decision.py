"""Decides how far the engines are held back: a pure function of readings and what was decided before.

    reading                                         decision
    others use cores                                measure thread counts again, half as long chunks
    others use none, but tasks wait (PSI)           half as long chunks
    close to the temperature limit, or throttled    one thread less every 2 s, then half as long chunks
    cool again                                      one thread more every 10 s
    on battery below the low charge                 half the cores, until mains or 5% more
    nothing to compute                              only heat counts

Beside other programs the engines keep all of their threads: which count is the fastest there depends on the
model and the kernel's scheduler, and each engine measures it while it decodes (`engine/batching/threads.py`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from edgeagent.settings.governor import GovernorSettings
from edgeagent.types.throttle import Reason, Throttle

STEP_DOWN_S = 2.0
STEP_UP_S = 10.0
# A count of taken cores is kept until the measured one is further away than this.
TAKEN_HYSTERESIS = 0.6
HIGH_PRESSURE, LOW_PRESSURE = 40.0, 20.0
CHARGED_PERCENT = 5
SHORT_CHUNKS = 0.5


@dataclass(frozen=True)
class Readings:
    """The device at one moment; None: unknown.

    `cores_taken`: cores in use by other programs since the last readings. `cpu_pressure`: percent of the
    last ten seconds in which some task waited for a core. `headroom_c`: degrees below the limit of the
    temperature. `is_throttled`: heat or lack of power slows the processor.
    """

    at_s: float
    is_working: bool = True
    cores_taken: float | None = None
    cpu_pressure: float | None = None
    headroom_c: float | None = None
    is_throttled: bool = False
    is_on_battery: bool = False
    battery_percent: int | None = None


@dataclass(frozen=True)
class GovernorState:
    """What is remembered between two decisions. `n_threads_off`: taken away for heat, the last time at
    `stepped_s`; `is_hot` until it is cool again. `mean_taken`: cores that others use, each reading half as
    much as the one after it; None: not measured since work began."""

    n_threads_off: int = 0
    stepped_s: float = -math.inf
    is_hot: bool = False
    is_short: bool = False
    n_cores_taken: int = 0
    mean_taken: float | None = None
    is_pressed: bool = False
    is_saving: bool = False


@dataclass(frozen=True)
class Decision:
    """`is_changing`: others use more or fewer cores than engines were told, maybe for a moment only: look
    again soon."""

    throttle: Throttle
    state: GovernorState
    is_changing: bool = False


def decide(
    readings: Readings, state: GovernorState, settings: GovernorSettings, n_cores: int
) -> Decision:
    """What the engines may use from now on. Pure."""
    min_threads = min(settings.min_threads, n_cores)
    state = _heat(readings, state, settings, n_cores - min_threads)
    state = _contention(readings, state, n_cores)
    state = _battery(readings, state, settings)
    n_threads = n_cores - state.n_threads_off
    if state.is_saving:
        n_threads = max(min_threads, min(n_threads, n_cores // 2))
    is_contended = state.n_cores_taken > 0 or state.is_pressed
    reasons: list[Reason] = []
    if is_contended:
        reasons.append("contention")
    if state.is_hot or state.n_threads_off:
        reasons.append("heat")
    if state.is_saving:
        reasons.append("battery")
    throttle = Throttle(
        n_threads=n_threads if n_threads < n_cores else None,
        chunk_share=SHORT_CHUNKS if is_contended or state.is_short else 1.0,
        n_cores_taken=state.n_cores_taken,
        reasons=tuple(reasons),
    )
    taken = readings.cores_taken
    is_changing = (
        readings.is_working
        and taken is not None
        and abs(min(taken, n_cores) - state.n_cores_taken) >= TAKEN_HYSTERESIS
    )
    return Decision(throttle, state, is_changing)


def _heat(
    readings: Readings, state: GovernorState, settings: GovernorSettings, n_most_off: int
) -> GovernorState:
    headroom_c = readings.headroom_c
    is_hot = readings.is_throttled or (
        headroom_c is not None and headroom_c < settings.heat_margin_c
    )
    is_cool = not is_hot and (headroom_c is None or headroom_c >= settings.cool_margin_c)
    if not is_hot and not is_cool:
        return state  # between the two margins nothing changes
    waited_s = readings.at_s - state.stepped_s
    n_off = min(state.n_threads_off, n_most_off)
    if is_hot and waited_s >= STEP_DOWN_S:
        is_least = n_off == n_most_off
        n_off = min(n_off + 1, n_most_off)
        return replace(
            state, is_hot=True, n_threads_off=n_off, is_short=is_least, stepped_s=readings.at_s
        )
    if is_cool and (n_off or state.is_hot) and waited_s >= STEP_UP_S:
        n_off = max(0, n_off - 1)
        return replace(
            state, is_hot=False, n_threads_off=n_off, is_short=False, stepped_s=readings.at_s
        )
    return replace(state, n_threads_off=n_off, is_hot=is_hot or state.is_hot)


def _contention(readings: Readings, state: GovernorState, n_cores: int) -> GovernorState:
    if not readings.is_working:
        return replace(state, n_cores_taken=0, mean_taken=None, is_pressed=False)
    n_taken, mean, measured = state.n_cores_taken, state.mean_taken, readings.cores_taken
    if measured is not None:
        mean = measured if mean is None else (mean + measured) / 2
        if abs(mean - n_taken) >= TAKEN_HYSTERESIS:
            n_taken = min(n_cores, round(mean))
    pressure = readings.cpu_pressure or 0.0
    is_pressed = measured is None and (
        pressure >= HIGH_PRESSURE or (state.is_pressed and pressure >= LOW_PRESSURE)
    )
    return replace(state, n_cores_taken=n_taken, mean_taken=mean, is_pressed=is_pressed)


def _battery(readings: Readings, state: GovernorState, settings: GovernorSettings) -> GovernorState:
    percent = readings.battery_percent
    if not (readings.is_working and readings.is_on_battery) or percent is None:
        return replace(state, is_saving=False)
    limit = settings.low_battery_percent + (CHARGED_PERCENT if state.is_saving else 0)
    return replace(state, is_saving=settings.low_battery_percent > 0 and percent < limit)
