"""How long requests will wait: from the tokens that wait and the rate at which tokens get done."""

from __future__ import annotations

import threading
import time
from bisect import bisect_right, insort
from collections import deque
from collections.abc import Callable

# A rate is measured over at least this long, and its moving average follows within about MEMORY_S.
WINDOW_S = 0.25
MEMORY_S = 5.0
# After a pause this long without steps, a new window begins: an idle engine says nothing about its rate.
PAUSE_S = 0.5
MAX_RETRY_AFTER_S = 120.0
MAX_TOLD = 4096  # times of one key that are remembered
# Who was told a time is expected from a little before it, since times are told in whole seconds, until LATE_S
# after it.
SOON_S = 0.5
LATE_S = 2.0
# Times are told this much later than the rate says: it was measured before the load that refuses requests,
# and that load slows the engine down. A place that is free early goes to a new request. Simulated in
# tests/engine/batching/crowd.py, with 3/4 of the queue kept for those that come back.
MARGIN = 1.4


class WaitEstimate:
    """The measured rate, and when refused requests should come back.

    Tokens are those of prompts, cached ones included, and of answers: a rate in the tokens that requests
    bring holds for requests like those before. Any thread may call anything.

    Refused requests are told times one after another, as far apart as places in the queue become free, so
    that they do not all come back at once. Each API key has a row of times of its own. Places are kept for
    those that are about to come back, lest new requests take them.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._per_s: float | None = None
        self._n_tokens = 0
        self._window_s = self._last_s = clock()
        self.request_tokens = 128.0  # of a usual request, prompt and answer
        self.answer_tokens = 64.0
        self._told_s: dict[str, deque[float]] = {}

    @property
    def tokens_per_s(self) -> float | None:
        """None until it was measured."""
        return self._per_s

    def count(self, n_tokens: int) -> None:
        """A step has ended that got this many tokens done."""
        now = self._clock()
        with self._lock:
            if now - self._last_s > PAUSE_S:
                self._window_s, self._n_tokens = now, 0  # this step's own time is not known
            else:
                self._n_tokens += n_tokens
            self._last_s = now
            took_s = now - self._window_s
            if took_s >= WINDOW_S and self._n_tokens:
                measured = self._n_tokens / took_s
                weight = 1.0 if self._per_s is None else min(1.0, took_s / MEMORY_S)
                self._per_s = measured * weight + (self._per_s or 0.0) * (1 - weight)
                self._window_s, self._n_tokens = now, 0

    def end(self, n_prompt: int, n_generated: int) -> None:
        """An answer has ended that had this many tokens."""
        with self._lock:
            self.request_tokens += 0.1 * (n_prompt + n_generated - self.request_tokens)
            self.answer_tokens += 0.1 * (n_generated - self.answer_tokens)

    def seconds(self, n_tokens: float) -> float | None:
        """How long this many tokens take; None until the rate is known."""
        return n_tokens / self._per_s if self._per_s else None

    def retry_after_s(self, scope: str, *, has_waited: bool = False) -> float:
        """When a refused request of this API key should come back, at most MAX_RETRY_AFTER_S from now. One
        that came back already and was refused again comes after those that are due now, before all others."""
        now = self._clock()
        with self._lock:
            place_s = MARGIN * self.request_tokens / self._per_s if self._per_s else 1.0
            row = self._row(scope, now)
            if has_waited:
                last_s = now + place_s * bisect_right(row, now + SOON_S)
            else:
                last_s = row[-1] if row else now
            told_s = min(max(now, last_s) + place_s, now + MAX_RETRY_AFTER_S)
            if len(row) < MAX_TOLD:
                insort(row, told_s)
            return max(1.0, told_s - now)

    def n_due(self, scope: str) -> int:
        """How many refused requests of this API key may come back at any moment."""
        now = self._clock()
        with self._lock:
            return bisect_right(self._row(scope, now), now + SOON_S)

    def came_back(self, scope: str) -> None:
        """A refused request of this API key is there again."""
        with self._lock:
            if row := self._row(scope, self._clock()):
                row.popleft()

    def _row(self, scope: str, now: float) -> deque[float]:
        """The times that requests of this API key were told, those of them that still count."""
        for key, row in list(self._told_s.items()):
            while row and row[0] < now - LATE_S:
                row.popleft()
            if not row and key != scope:
                del self._told_s[key]
        return self._told_s.setdefault(scope, deque())
