"""What a step costs by its number of tokens, each with logits: measured while decoding."""

from __future__ import annotations

import statistics
from bisect import bisect_left
from collections import deque
from dataclasses import dataclass, field

# A step of n tokens costs n + F units: reading the weights costs as much as computing F tokens. F is at least
# FIXED: measured were 4.3 times the time of one token for 8 of them, and 8 for 16 (135M Q4_1, 2 cores of a
# Zen 4 server), and 2.8 for 8 (the same in Q4_0 on one Xeon core). A guess that is too high is never tried.
FIXED = 1.0
LARGEST_FIXED = 64.0
# What was measured this many steps ago is forgotten, so that one bad measurement does not last.
KEPT_STEPS = 512
WEIGHT = 0.25
NEW_WEIGHT = (
    0.6  # of the first measurement of a size, or of one after long, against what was expected
)
FRESH_STEPS = 24
OUTLIER = 2.0  # times longer, or shorter, than expected is counted as this much
# Of a size that runs all the time, the median of the last steps counts: one step of 174 ms in place
# of 36 made 8 answers draft for 24 steps, each a third too long (SmolLM2-135M, zen4, 2026-11-30).
N_RECENT = 5
N_FEW = 3
# A step that took this many times what is believed, or less than its part, says that it is not known well.
ODD = 1.25


@dataclass
class VerifyCosts:
    """Seconds of a step, by its number of tokens: medians, or moving averages of few. Engine thread only."""

    _times: dict[int, float] = field(default_factory=dict)
    _seen: dict[int, int] = field(default_factory=dict)
    _sizes: list[int] = field(default_factory=list)  # ascending
    _recent: dict[int, deque[float]] = field(default_factory=dict)  # since it ran seldom
    _odd: set[int] = field(default_factory=set)
    _n_steps: int = 0
    _idle_s: dict[int, float] = field(default_factory=dict)  # measured when nothing else ran

    def take(self, step_s: dict[int, float]) -> None:
        """Begin with these times. Those of sizes that have run since are known better."""
        self._idle_s = step_s
        self._times = step_s | {n: self._times[n] for n in self._seen}
        self._sizes = sorted(self._times)

    def observe(self, n_tokens: int, took_s: float) -> None:
        """A step of `n_tokens` has taken `took_s`. One that other work has held up counts little."""
        self._n_steps += 1
        is_new = n_tokens not in self._times
        is_seldom = not self._is_recent(n_tokens)
        recent = self._recent.setdefault(n_tokens, deque(maxlen=N_RECENT))
        if is_seldom:
            recent.clear()
        recent.append(took_s)
        believed_s = took_s
        if len(recent) >= N_FEW:
            believed_s = statistics.median(recent)
        elif self._sizes:
            expected = self.seconds(n_tokens)
            bounded = min(max(took_s, expected / OUTLIER), expected * OUTLIER)
            believed_s = expected + (NEW_WEIGHT if is_seldom else WEIGHT) * (bounded - expected)
        is_odd = not believed_s / ODD <= took_s <= believed_s * ODD
        (self._odd.add if is_odd else self._odd.discard)(n_tokens)
        self._times[n_tokens] = believed_s
        self._seen[n_tokens] = self._n_steps
        if is_new:
            self._sizes = sorted(self._times)
        if self._n_steps % 64 == 0:
            self._forget()

    def is_fresh(self, n_tokens: int) -> bool:
        """Whether a step of this size has run just now, and took what is believed."""
        return self._is_recent(n_tokens) and n_tokens not in self._odd

    def _is_recent(self, n_tokens: int) -> bool:
        return self._n_steps - self._seen.get(n_tokens, -FRESH_STEPS) <= FRESH_STEPS

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
        return self._beyond(n_tokens)

    def _beyond(self, n_tokens: int) -> float:
        """A guess for a size that is smaller, or larger, than all that were measured."""
        assert self._sizes, "observe comes first"
        first, last = self._sizes[0], self._sizes[-1]
        nearest = first if n_tokens < first else last
        fixed = self._fixed(first, last)
        return self._times[nearest] * (n_tokens + fixed) / (nearest + fixed)

    def _fixed(self, first: int, last: int) -> float:
        """How many tokens the weights cost, by the smallest and the largest size that were measured."""
        if first == last:
            return FIXED
        ratio = self._times[last] / self._times[first]
        if ratio <= 1:
            return LARGEST_FIXED
        return min(LARGEST_FIXED, max(FIXED, (last - first * ratio) / (ratio - 1)))

    def _forget(self) -> None:
        """Drop what was measured long ago, except the last size."""
        old = [n for n, seen in self._seen.items() if self._n_steps - seen > KEPT_STEPS]
        for size in old:
            del self._times[size], self._seen[size], self._recent[size]
            self._odd.discard(size)
        self.take(self._idle_s)
