"""Lets the next step wait a moment for prompts that come with those that are there.

Prompts that begin in one step have their first tokens together. One after the other, the first would have its
own within a short step, and each of the others would hold up those before it: 8 chats sent at once took nine
steps with prompts, of 18 tokens each (SmolLM2-135M, 2 cores of a Zen 4).

The daemon passes requests on a few milliseconds apart, so that the first one is often prepared before the
second one is here. A step waits for that where requests came in groups just before, and not for a client that
is alone.
"""

from __future__ import annotations

import time
from collections.abc import Callable

# How long it waits at most. Preparing a short prompt takes a millisecond or two.
LONGEST_S = 0.03
# How long it waits for one more where nothing tells that there is one.
LINGER_S = 0.006
# Requests that come sooner after one another are a group.
GROUP_S = 0.1


class ArrivalPause:
    """Engine thread only. `is_preparing` says whether requests are being prepared."""

    def __init__(
        self, is_preparing: Callable[[], bool], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._is_preparing = is_preparing
        self._clock = clock
        self._ends_s: float | None = None
        self._arrived_s = float("-inf")
        self._n_group = self._n_last_group = 0

    def arrive(self) -> None:
        """A request has come, and is prepared."""
        now = self._clock()
        if now - self._arrived_s > GROUP_S:
            self._n_last_group, self._n_group = self._n_group, 0
        self._n_group += 1
        self._arrived_s = now

    def seconds(self, *, may_wait: bool) -> float:
        """How long the next step waits. While requests come all the time, only the first step does.

        `may_wait`: there are prompts to compute, and no client waits for the next token of an answer.
        """
        if not may_wait:
            self._ends_s = None
            return 0.0
        now = self._clock()
        until_s = now + LONGEST_S if self._is_preparing() else self._lingers_until_s()
        if until_s <= now:
            self._ends_s = None
            return 0.0
        if self._ends_s is None:
            self._ends_s = now + LONGEST_S
        return max(0.0, min(self._ends_s, until_s) - now)

    def _lingers_until_s(self) -> float:
        """Where this group or the last one had more than one request."""
        has_groups = max(self._n_group, self._n_last_group) > 1
        return self._arrived_s + LINGER_S if has_groups else float("-inf")
