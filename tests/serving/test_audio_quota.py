"""Seconds of audio within 24 hours, by key, on a clock of the tests."""

from __future__ import annotations

import pytest

from edgeagent.errors import RateLimited
from edgeagent.serving.audio_quota import DAY_S, AudioQuota

HOUR_S = 3600.0


class Clock:
    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


def quota(
    default_s: float | None = None, past: dict[str, list[tuple[float, float]]] | None = None
) -> tuple[AudioQuota, Clock]:
    clock = Clock()

    async def known(key_id: str) -> list[tuple[float, float]]:
        return (past or {}).get(key_id, [])

    return AudioQuota(known, default_s=default_s, clock=clock), clock


async def refusal(
    one: AudioQuota, key_id: str, limit_s: float | None, audio_s: float
) -> RateLimited:
    with pytest.raises(RateLimited) as caught:
        await one.take(key_id, limit_s, audio_s)
    return caught.value


async def test_without_a_bound_nothing_is_counted():
    one, _ = quota()
    await one.take("a", None, 1e12)
    await one.check("a", None)


async def test_a_key_has_its_own_bound_or_the_setting():
    one, _ = quota(default_s=100)
    await one.take("a", None, 100)
    assert "100 of its 100 s" in (await refusal(one, "a", None, 1)).message
    await one.take("b", 300, 300)
    with pytest.raises(RateLimited):
        await one.check("b", 300)
    await one.check("c", None)


async def test_what_is_refused_is_not_counted_and_a_shorter_one_fits():
    one, _ = quota()
    await one.take("a", 100, 60)
    assert (await refusal(one, "a", 100, 41)).retry_after_s == DAY_S
    await one.take("a", 100, 40)


async def test_it_comes_back_recording_by_recording_a_day_later():
    one, clock = quota()
    await one.take("a", 100, 60)
    clock.now_s += HOUR_S
    await one.take("a", 100, 40)
    assert (await refusal(one, "a", 100, 50)).retry_after_s == DAY_S - HOUR_S
    assert (await refusal(one, "a", 100, 61)).retry_after_s == DAY_S
    clock.now_s += DAY_S - HOUR_S
    await one.take("a", 100, 60)
    await refusal(one, "a", 100, 1)


async def test_a_recording_longer_than_a_day_s_audio_never_fits():
    one, _ = quota()
    assert "send a shorter one" in (await refusal(one, "a", 100, 101)).message
    assert one.most_s(100) == 100


async def test_live_speech_counts_at_its_end_and_is_refused_at_its_beginning():
    one, _ = quota()
    await one.check("a", 100)
    one.add("a", 100, 130)
    one.add("b", None, 130)
    with pytest.raises(RateLimited):
        await one.check("a", 100)


async def test_a_restart_gives_nothing_back():
    one, clock = quota(past={"a": [(HOUR_S, 70.0), (23 * HOUR_S, 30.0)]})
    assert (await refusal(one, "a", 100, 10)).retry_after_s == HOUR_S
    clock.now_s += HOUR_S
    await one.take("a", 100, 30)
    await refusal(one, "a", 100, 1)
