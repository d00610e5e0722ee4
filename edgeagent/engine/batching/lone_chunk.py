"""Ends a chunk of a prompt that is computed alone when a request arrives, if more of it is left than done.

A prompt that nobody waits beside is computed in chunks of up to 0.6 s by all threads. A request that
arrives meanwhile would wait for the rest of one; afterwards both prompts are computed on threads of their
own, so that the longer one loses what was done of this chunk, and no more. The request waits for half of a
chunk at most.
"""

from __future__ import annotations

from collections.abc import Callable

# Less is not worth computing again what was done.
LEAST_LEFT_S = 0.1


class LoneChunk:
    """Engine thread, except `is_worth_ending`, which any thread may ask."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._times: tuple[float, float] | None = None  # when it began and will end

    def begin(self, expected_s: float | None) -> None:
        """Unless nobody knows how long it takes."""
        now = self._clock()
        self._times = None if expected_s is None else (now, now + expected_s)

    def end(self) -> None:
        self._times = None

    def is_worth_ending(self) -> bool:
        if self._times is None:
            return False
        begun_s, end_s = self._times
        now = self._clock()
        return end_s - now > max(LEAST_LEFT_S, now - begun_s)
