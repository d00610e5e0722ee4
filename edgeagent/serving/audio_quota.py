"""How many seconds of audio each API key may have transcribed within 24 hours.

Counted where the length of a recording is known: behind the survey, before the first window; live speech
minute by minute. What was transcribed before a restart is read from the request log with the first
recording of a key.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Awaitable, Callable
from functools import partial

from edgeagent.errors import EdgeAgentError, RateLimited
from edgeagent.store import requests
from edgeagent.store.database import Database
from edgeagent.store.sql import now_ms

DAY_S = 86_400.0

# Of a key: seconds ago and seconds of audio, of each recording in the last 24 hours.
Past = Callable[[str], Awaitable[list[tuple[float, float]]]]


class AudioQuota:
    """Event loop's thread only. `default_s` bounds keys without a bound of their own; None: no bound."""

    def __init__(
        self,
        past: Past,
        *,
        default_s: float | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._past = past
        self._default_s = default_s
        self._clock = clock
        self._used: dict[str, deque[tuple[float, float]]] = {}

    @classmethod
    def of(cls, database: Database | None, default_s: float | None) -> AudioQuota:
        """With what the request log of a database knows."""
        return cls(partial(_past_audio, database), default_s=default_s)

    async def check(self, key_id: str, limit_s: float | None) -> None:
        """Before a recording is read. Raises: RateLimited for a key that has nothing left."""
        bound_s = self.most_s(limit_s)
        if bound_s is not None:
            await self._room(key_id, bound_s, 0.0)

    async def take(self, key_id: str, limit_s: float | None, audio_s: float) -> None:
        """Count a recording. Raises: RateLimited where it is longer than what is left; it is not counted."""
        bound_s = self.most_s(limit_s)
        if bound_s is not None:
            await self._room(key_id, bound_s, audio_s)
            self._used[key_id].append((self._clock(), audio_s))

    def add(self, key_id: str, limit_s: float | None, audio_s: float) -> None:
        """Count live speech, which a `check` has let begin."""
        if self.most_s(limit_s) is not None:
            self._used.setdefault(key_id, deque()).append((self._clock(), audio_s))

    def most_s(self, limit_s: float | None) -> float | None:
        """The bound of a key with this limit of its own; None: unlimited."""
        return limit_s if limit_s is not None else self._default_s

    async def _room(self, key_id: str, bound_s: float, audio_s: float) -> None:
        if key_id not in self._used:
            past = sorted(await self._past(key_id), reverse=True)
            now = self._clock()
            self._used.setdefault(key_id, deque((now - ago, length) for ago, length in past))
        used, now = self._used[key_id], self._clock()
        while used and used[0][0] <= now - DAY_S:
            used.popleft()
        n_used = sum(length for _, length in used)
        if n_used + audio_s <= bound_s and n_used < bound_s:
            return
        if audio_s > bound_s:
            raise RateLimited(
                f"The recording has {audio_s:.0f} s, this key may have {bound_s:.0f} s of audio transcribed "
                "a day: send a shorter one, or ask for a higher `audio_seconds_per_day`.",
                retry_after_s=DAY_S,
            )
        raise RateLimited(
            f"This key has had {n_used:.0f} of its {bound_s:.0f} s of audio of a day transcribed"
            + (f", this recording has {audio_s:.0f} s" if audio_s else "")
            + ": try again later, or ask for a higher `audio_seconds_per_day`.",
            retry_after_s=self._wait_s(used, n_used + max(audio_s, 1.0) - bound_s),
        )

    def _wait_s(self, used: deque[tuple[float, float]], wanted_s: float) -> float:
        """Seconds until the oldest recordings that have `wanted_s` together are a day old."""
        freed = 0.0
        for at_s, length in used:
            freed += length
            if freed >= wanted_s:
                return max(1.0, at_s + DAY_S - self._clock())
        return DAY_S


async def _past_audio(database: Database | None, key_id: str) -> list[tuple[float, float]]:
    """What the request log knows; nothing where it cannot be read."""
    if database is None:
        return []
    now = now_ms()
    try:
        found = await database.read_async(
            lambda db: requests.audio(db, key_id, since_ms=now - int(1000 * DAY_S))
        )
    except EdgeAgentError:
        return []
    return [(max(0.0, (now - at_ms) / 1000), audio_s) for at_ms, audio_s in found]
