"""What a step costs by its number of tokens, each with logits: measured while decoding."""

from __future__ import annotations

import math
from bisect import bisect_left
from dataclasses import dataclass, field

# Where nothing larger or smaller was measured, n times the tokens take n ** GROWTH of the time. A guess that
# is tried, and then replaced: measured were 4.3 of 8 tokens (135M Q4_1, 2 cores of a Zen 4 server) and 2.8
# (the same in Q4_0 on one Xeon core).
GROWTH = 0.65
# What was measured this many steps ago is forgotten, so that one bad measurement does not last.
KEPT_STEPS = 512
WEIGHT = 0.25
NEW_WEIGHT = 0.6  # of the first measurement of a size, against what was expected
OUTLIER = 2.0  # times longer, or shorter, than expected is counted as this much


@dataclass
class VerifyCosts:
    """Seconds of a step, by its number of tokens: moving averages. Engine thread only."""

    _times: dict[int, float] = field(default_factory=dict)
    _seen: dict[int, int] = field(default_factory=dict)
    _sizes: list[int] = field(default_factory=list)  # ascending
    _n_steps: int = 0

    def observe(self, n_tokens: int, took_s: float) -> None:
        """A step of `n_tokens` has taken `took_s`. One that other work has held up counts little."""
        self._n_steps += 1
        is_new = n_tokens not in self._times
        if self._sizes:
            expected = self.seconds(n_tokens)
            bounded = min(max(took_s, expected / OUTLIER), expected * OUTLIER)
            took_s = expected + (NEW_WEIGHT if is_new else WEIGHT) * (bounded - expected)
        self._times[n_tokens] = took_s
        self._seen[n_tokens] = self._n_steps
        if is_new:
            self._sizes = sorted(self._times)
        if self._n_steps % 64 == 0:
            self._forget()

    @property
    def is_known(self) -> bool:
        return bool(self._sizes)

    def seconds(self, n_tokens: int) -> float:
        """The time of a step of `n_tokens`, from the nearest sizes measured. Something was observed."""
        at = bisect_left(self._sizes, n_tokens)
        above = self._sizes[at] if at < len(self._sizes) else None
        if above == n_tokens:
            return self._times[n_tokens]
        below = self._sizes[at - 1] if at else None
        if below is not None and above is not None:
            share = (n_tokens - below) / (above - below)
            return self._times[below] + share * (self._times[above] - self._times[below])
        nearest = below if below is not None else above
        assert nearest is not None, "observe comes first"
        return self._times[nearest] * math.pow(n_tokens / nearest, GROWTH)

    def _forget(self) -> None:
        """Drop sizes that were not seen for long, except the last."""
        for size in self._sizes:
            if self._n_steps - self._seen[size] > KEPT_STEPS and len(self._times) > 1:
                del self._times[size], self._seen[size]
        self._sizes = sorted(self._times)
