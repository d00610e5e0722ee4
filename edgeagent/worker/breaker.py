"""Decides when to start a worker again after it died, and when to stop trying."""

from __future__ import annotations

from dataclasses import dataclass, field

FIRST_DELAY_S = 0.25
MAX_DELAY_S = 10.0


@dataclass
class Breaker:
    """Counts deaths since the last complete answer. The caller passes the time.

    A worker that answers between its deaths is always restarted. After `limit` deaths within `window_s`
    without an answer the breaker opens; it closes when the oldest of those deaths is `window_s` old.
    """

    limit: int
    window_s: float
    _deaths: list[float] = field(default_factory=list)

    def record_death(self, now_s: float) -> None:
        self._deaths = [*self._recent(now_s), now_s][-self.limit :]

    def record_answer(self) -> None:
        self._deaths.clear()

    def closes_in_s(self, now_s: float) -> float | None:
        """Seconds until a start is allowed again; None when it is allowed now."""
        recent = self._recent(now_s)
        if len(recent) < self.limit:
            return None
        return recent[0] + self.window_s - now_s

    def delay_s(self, now_s: float) -> float:
        """Seconds to wait before the next start: none after one death, then doubling."""
        n = len(self._recent(now_s))
        return 0.0 if n < 2 else min(MAX_DELAY_S, FIRST_DELAY_S * 2.0 ** (n - 2))

    def _recent(self, now_s: float) -> list[float]:
        return [at for at in self._deaths if now_s - at < self.window_s]
