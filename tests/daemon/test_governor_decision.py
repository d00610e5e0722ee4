"""What the governor decides: a table, properties, a simulated device, and a recording."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeagent.daemon.governor_decision import (
    STEP_DOWN_S,
    STEP_UP_S,
    TAKEN_HYSTERESIS,
    Decision,
    GovernorState,
    Readings,
    decide,
)
from edgeagent.settings.governor import GovernorSettings
from edgeagent.types.throttle import Throttle

SETTINGS = GovernorSettings()
N_CORES = 4
NOTHING = Throttle()
# What other programs used of two cores while a daemon decoded, some of them busy and others coming and going:
# `scripts/bench governor --record`, xeon, 2026-11-29.
TRACE = Path(__file__).parent / "traces" / "contention.jsonl"


def decided(
    readings: Readings, state: GovernorState | None = None, n_cores: int = N_CORES
) -> Decision:
    return decide(readings, state or GovernorState(), SETTINGS, n_cores)


@pytest.mark.parametrize(
    ("readings", "expected"),
    [
        (Readings(0), NOTHING),
        (Readings(0, cores_taken=0.5), NOTHING),
        (Readings(0, cores_taken=1.0), Throttle(n_cores_taken=1, chunk_share=0.5, reasons=("contention",))),
        (Readings(0, cores_taken=2.4), Throttle(n_cores_taken=2, chunk_share=0.5, reasons=("contention",))),
        (Readings(0, cores_taken=99), Throttle(n_cores_taken=4, chunk_share=0.5, reasons=("contention",))),
        (Readings(0, cores_taken=0.1, cpu_pressure=90), NOTHING),
        (Readings(0, cpu_pressure=90), Throttle(chunk_share=0.5, reasons=("contention",))),
        (Readings(0, cpu_pressure=30), NOTHING),
        (Readings(0, headroom_c=20), NOTHING),
        (Readings(0, headroom_c=5), NOTHING),
        (Readings(0, headroom_c=2), Throttle(n_threads=3, reasons=("heat",))),
        (Readings(0, headroom_c=-5), Throttle(n_threads=3, reasons=("heat",))),
        (Readings(0, is_throttled=True), Throttle(n_threads=3, reasons=("heat",))),
        (Readings(0, headroom_c=30, is_throttled=True), Throttle(n_threads=3, reasons=("heat",))),
        (Readings(0, is_on_battery=True, battery_percent=80), NOTHING),
        (Readings(0, is_on_battery=True), NOTHING),
        (Readings(0, is_on_battery=True, battery_percent=19), Throttle(n_threads=2, reasons=("battery",))),
        (Readings(0, battery_percent=3), NOTHING),
        (
            Readings(0, cores_taken=1, headroom_c=0, is_on_battery=True, battery_percent=5),
            Throttle(
                n_threads=2, n_cores_taken=1, chunk_share=0.5, reasons=("contention", "heat", "battery")
            ),
        ),
        (Readings(0, is_working=False, cores_taken=3, is_on_battery=True, battery_percent=5), NOTHING),
        (
            Readings(0, is_working=False, headroom_c=0),
            Throttle(n_threads=3, reasons=("heat",)),
        ),
    ],
)  # fmt: skip
def test_the_first_decision(readings: Readings, expected: Throttle):
    assert decided(readings).throttle == expected


@pytest.mark.parametrize(
    ("before", "readings", "is_changing"),
    [
        (0, Readings(0), False),
        (0, Readings(0, cores_taken=0.3), False),
        (0, Readings(0, cores_taken=1.0), True),
        (1, Readings(0, cores_taken=1.0), False),
        (1, Readings(0, cores_taken=0.2), True),
        (4, Readings(0, cores_taken=9.0), False),  # there are no more cores to take
        (0, Readings(0, is_working=False, cores_taken=3.0), False),
    ],
)
def test_it_looks_again_soon_while_others_begin_or_cease(
    before: int, readings: Readings, is_changing: bool
):
    """A mean that has not followed yet: the reading differs from what the engines were told."""
    state = GovernorState(n_cores_taken=before, mean_taken=float(before))
    decision = decided(readings, state)
    assert decision.is_changing == is_changing
    if is_changing:
        assert decision.throttle.n_cores_taken == before
        soon = decided(replace(readings, at_s=0.25), decision.state)
        assert soon.throttle.n_cores_taken != before and not soon.is_changing


def test_a_taken_core_is_believed_gone_only_when_the_use_has_clearly_dropped():
    state = decided(Readings(0, cores_taken=1.0)).state
    uses = (
        (0.5, 1),
        (1.5, 1),
        (0.3, 1),
        (0.1, 1),
        (0.1, 0),
        (0.8, 0),
        (0.7, 1),
        (2.0, 1),
        (2.2, 2),
    )
    for measured, expected in uses:
        decision = decided(Readings(1, cores_taken=measured), state)
        state = decision.state
        assert decision.throttle.n_cores_taken == expected, measured


def test_heat_takes_one_thread_at_a_time_and_then_shortens_chunks():
    state, seen = GovernorState(), []
    for second in range(10):
        decision = decided(Readings(second, headroom_c=1), state)
        state = decision.state
        seen.append((decision.throttle.n_threads, decision.throttle.chunk_share))
    assert seen[::2] == [(3, 1.0), (2, 1.0), (1, 1.0), (1, 0.5), (1, 0.5)]


def test_threads_come_back_slowly_when_it_is_cool_and_not_between_the_margins():
    state = replace(GovernorState(), n_threads_off=2, is_hot=True, stepped_s=0.0)
    assert decided(Readings(60, headroom_c=5), state).throttle.n_threads == 2
    cool = Readings(STEP_UP_S, headroom_c=9)
    first = decided(cool, state)
    assert first.throttle == Throttle(n_threads=3, reasons=("heat",))
    assert decided(replace(cool, at_s=STEP_UP_S + 1), first.state).throttle.n_threads == 3
    second = decided(replace(cool, at_s=2 * STEP_UP_S), first.state)
    assert second.throttle == NOTHING


def test_a_battery_counts_as_charged_a_little_above_the_limit_or_at_once_on_mains():
    low = decided(Readings(0, is_on_battery=True, battery_percent=19)).state
    assert decided(Readings(1, is_on_battery=True, battery_percent=22), low).throttle.reasons
    assert not decided(Readings(1, is_on_battery=True, battery_percent=26), low).throttle.reasons
    assert not decided(Readings(1, battery_percent=5), low).throttle.reasons


def test_a_single_core_is_never_taken_away_and_chunks_get_shorter_instead():
    decision = decided(Readings(0, headroom_c=-9, is_on_battery=True, battery_percent=1), n_cores=1)
    assert decision.throttle.n_threads is None and decision.throttle.chunk_share == 0.5
    assert decision.throttle.reasons == ("heat", "battery")


maybe = st.none() | st.floats(-200, 300, allow_nan=False)
readings = st.builds(
    Readings, st.floats(0, 1e6), st.booleans(), st.none() | st.floats(0, 1e3), st.none() | st.floats(0, 100),
    maybe, st.booleans(), st.booleans(), st.none() | st.integers(0, 100),
)  # fmt: skip


@given(trace=st.lists(readings, max_size=30), n_cores=st.integers(1, 64), least=st.integers(1, 64))
def test_no_trace_takes_away_more_than_is_allowed(trace, n_cores, least):
    settings, state = GovernorSettings(min_threads=least), GovernorState()
    for reading in sorted(trace, key=lambda reading: reading.at_s):
        decision = decide(reading, state, settings, n_cores)
        throttle, state = decision.throttle, decision.state
        n_threads = throttle.n_threads or n_cores
        assert min(least, n_cores) <= n_threads <= n_cores
        assert 0 <= throttle.n_cores_taken <= n_cores
        is_held_back = throttle != NOTHING
        assert is_held_back == bool(throttle.reasons)


def test_a_device_that_gets_too_hot_settles_below_the_limit_and_recovers():
    """A board whose temperature follows the threads: 45 degrees plus 12 for each, within about 20 s."""
    limit_c, temp_c, state, seen = 80.0, 50.0, GovernorState(), []
    n_threads, n_changes = N_CORES, 0
    for second in range(900):
        is_working = second < 600
        target_c = 45.0 + 12.0 * (n_threads if is_working else 0)
        temp_c += (target_c - temp_c) / 20
        decision = decided(Readings(second, is_working, headroom_c=limit_c - temp_c), state)
        state = decision.state
        n_changes += (decision.throttle.n_threads or N_CORES) != n_threads
        n_threads = decision.throttle.n_threads or N_CORES
        seen.append(temp_c)
    assert max(seen) < limit_c + 1
    assert n_changes <= 60, "one step every ten seconds at most"
    assert decision.throttle == NOTHING
    assert STEP_DOWN_S < STEP_UP_S


def test_a_recording_is_followed_closely_and_without_going_to_and_fro():
    rows = [json.loads(line) for line in TRACE.read_text().splitlines()]
    state, taken, reasons = GovernorState(), [], set()
    for row in rows:
        decision = decided(Readings(row["at_s"], cores_taken=row["cores_taken"]), state, n_cores=2)
        state = decision.state
        taken.append(decision.throttle.n_cores_taken)
        reasons.add(decision.throttle.reasons)
        assert state.mean_taken is not None
        assert abs(taken[-1] - state.mean_taken) < TAKEN_HYSTERESIS
        assert decision.throttle.n_threads is None, "which count is the fastest is measured"
    assert len(rows) > 80 and reasons == {("contention",)}
    nearest = [round(row["cores_taken"]) for row in rows]
    assert n_changes(taken) < n_changes(nearest) / 2


def n_changes(values: list[int]) -> int:
    return sum(a != b for a, b in pairwise(values))
