"""Seconds of a step by its number of tokens, as they were measured, corrected by steps that run."""

from __future__ import annotations

import math
import statistics
from bisect import bisect_left
from collections import deque

from edgeagent.types.step_costs import TILE

# How far one step with prompts moves what is expected of all of them: a device that heats up is noticed
# within a few steps.
COMMON_WEIGHT = 0.15
# What steps of one size took is the median of so many: other work holds up one in ten.
N_RECENT = 5
# What was expected of a size counts as so many of them in the beginning.
N_BEGIN = 2
# Each size of decode steps is known by itself; larger steps by the nearest of the measured sizes.
EXACT = 16
# A step that takes longer than this many times what was expected says as much as one at the bound.
LARGEST_ERROR = 4.0


class CostCurve:
    """The curve is not smooth: llama.cpp computes attention in another way from `TILE` tokens on, and no
    interpolation crosses that. Engine thread only."""

    def __init__(self, step_s: dict[int, float]) -> None:
        self.sizes = sorted(step_s)
        self._base = [step_s[n] for n in self.sizes]
        self._recent: dict[int, deque[float]] = {}  # logarithms of factors, by size
        self._common = 0.0

    def seconds(
        self,
        n_tokens: int,
        attention_s: float,
        *,
        has_prompts: bool,
        is_corrected: bool = True,
    ) -> float:
        """Of a step of so many tokens, whose attention adds `attention_s`: by all that ran, or as it was
        measured."""
        low, high, share = self._place(n_tokens)
        base = (1 - share) * self._base[low] + share * self._base[high]
        if low == high:
            base *= n_tokens / self.sizes[low]
        if not is_corrected:
            return base + attention_s
        factor = self._factor(n_tokens, low, high, share) + self._common * has_prompts
        return (base + attention_s) * math.exp(factor)

    def learn(self, n_tokens: int, ratio: float, *, has_prompts: bool) -> None:
        """A step took `ratio` times what was expected."""
        bound = math.log(LARGEST_ERROR)
        error = max(-bound, min(bound, math.log(max(ratio, 1e-9))))
        low, high, share = self._place(n_tokens)
        factor = self._factor(n_tokens, low, high, share)
        key = n_tokens if n_tokens <= EXACT else self.sizes[low if share < 0.5 else high]
        recent = self._recent.setdefault(key, deque([factor] * N_BEGIN, maxlen=N_RECENT))
        if has_prompts:
            shift = COMMON_WEIGHT * (factor + error)
            self._common += shift
            factor -= shift
        recent.append(factor + error)

    def _factor(self, n_tokens: int, low: int, high: int, share: float) -> float:
        """The logarithm of what steps of this size took, over what was measured."""
        if n_tokens in self._recent:
            return statistics.median(self._recent[n_tokens])
        return (1 - share) * self._of(self.sizes[low]) + share * self._of(self.sizes[high])

    def _of(self, size: int) -> float:
        return statistics.median(self._recent[size]) if size in self._recent else 0.0

    def _place(self, n_tokens: int) -> tuple[int, int, float]:
        """The measured sizes around this one, and how far it is on the way from the first to the second.

        One size twice: the next one lies beyond the end of the curve, or where it computes in another way.
        """
        high = bisect_left(self.sizes, n_tokens)
        if high == len(self.sizes):
            return high - 1, high - 1, 0.0
        if high == 0 or self.sizes[high] == n_tokens:
            return high, high, 0.0
        low = high - 1
        if self.sizes[low] < TILE <= self.sizes[high]:  # another way of computing
            near = low if n_tokens < TILE else high
            return near, near, 0.0
        return low, high, (n_tokens - self.sizes[low]) / (self.sizes[high] - self.sizes[low])
