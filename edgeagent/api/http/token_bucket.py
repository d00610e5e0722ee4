"""A token bucket: an amount that may be used at once, refilled evenly. Pure but for its clock."""

from __future__ import annotations

import time
from collections.abc import Callable


class TokenBucket:
    """Holds up to `capacity`, which it has at first, and gains `per_s` each second.

    Charges after the fact may make it negative. A clock (monotonic seconds) that goes back adds nothing.
    """

    def __init__(
        self, capacity: float, per_s: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.capacity = capacity
        self._per_s = per_s
        self._clock = clock
        self._level = float(capacity)
        self._at_s = clock()

    @property
    def level(self) -> float:
        now_s = self._clock()
        self._level = min(self.capacity, self._level + max(0.0, now_s - self._at_s) * self._per_s)
        self._at_s = now_s
        return self._level

    def take(self, amount: float) -> None:
        self._level = self.level - amount

    def wait_s(self, wanted: float) -> float:
        """Seconds until it holds `wanted`, which is at most its capacity."""
        return max(0.0, wanted - self.level) / self._per_s

    @property
    def is_full(self) -> bool:
        return self.level >= self.capacity
