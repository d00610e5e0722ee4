"""Which of several upstreams of a model gets the next request. Pure.

The one whose answer is expected first: (requests that it has + 1) * seconds per token when alone, as its
answers were measured. Under load the open requests of each are then in proportion to its speed.
Source: shortest expected delay, Banawan and Zahorjan 1989.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

# Part that a new measurement has in the estimate.
NEWEST = 0.1
# An older estimate is forgotten, so that one that was slow once is tried again.
STALE_S = 60.0


@dataclass(frozen=True)
class UpstreamState:
    """An upstream at one moment. `cooling_s`: how long it is avoided. `s_per_token` None: unknown."""

    name: str
    n_running: int = 0
    max_concurrent: int = 16
    cooling_s: float = 0.0
    s_per_token: float | None = None

    @property
    def has_room(self) -> bool:
        return self.n_running < self.max_concurrent


def choose(states: Sequence[UpstreamState]) -> str | None:
    """The name of the upstream that should get the request; None where none can take it now.

    One that was never measured counts as fast as the fastest of the others, so that it gets requests.
    """
    able = [one for one in states if one.cooling_s <= 0 and one.has_room]
    known = [one.s_per_token for one in able if one.s_per_token is not None]
    fastest = min(known, default=1.0)

    def expected(one: UpstreamState) -> tuple[float, bool, str]:
        s_per_token = one.s_per_token if one.s_per_token is not None else fastest
        return (one.n_running + 1) * s_per_token, one.s_per_token is not None, one.name

    return min(able, key=expected).name if able else None


@dataclass(frozen=True)
class Speed:
    """Seconds per token of an upstream when it has one request, and when that was measured (monotonic)."""

    s_per_token: float
    measured_s: float

    def at(self, now_s: float) -> float | None:
        """The estimate; None for one that is too old."""
        return self.s_per_token if now_s - self.measured_s <= STALE_S else None


def measured(
    before: Speed | None, *, took_s: float, n_tokens: int, n_running: float, now_s: float
) -> Speed:
    """The estimate after an answer of `n_tokens` beside which there were `n_running` requests, itself
    included: requests at once share the speed of an engine."""
    sample = took_s / max(1, n_tokens) / max(1.0, n_running)
    known = before.at(now_s) if before is not None else None
    return Speed(sample if known is None else known + NEWEST * (sample - known), now_s)
