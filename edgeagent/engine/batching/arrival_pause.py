"""Lets the next step wait a moment for prompts that are being prepared.

Prompts that begin in one step have their first tokens together. One after the other, the first would have its
own within a short step, and each of the others would hold up those before it: 8 chats sent at once took nine
steps with prompts, of 18 tokens each (SmolLM2-135M, 2 cores of a Zen 4).
"""

from __future__ import annotations

import time
from collections.abc import Callable

# How long it waits at most. Preparing a short prompt takes a millisecond or two.
LONGEST_S = 0.02


class ArrivalPause:
    """Engine thread only. `is_preparing` says whether requests are being prepared."""

    def __init__(
        self, is_preparing: Callable[[], bool], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._is_preparing = is_preparing
        self._clock = clock
        self._ends_s: float | None = None

    def seconds(self, *, may_wait: bool) -> float:
        """How long the next step waits. While requests come all the time, only the first step does.

        `may_wait`: there are prompts to compute, and no client waits for the next token of an answer.
        """
        if not may_wait or not self._is_preparing():
            self._ends_s = None
            return 0.0
        now = self._clock()
        if self._ends_s is None:
            self._ends_s = now + LONGEST_S
        return max(0.0, self._ends_s - now)
