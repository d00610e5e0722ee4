"""Seconds of a step by its number of tokens, as they were measured, corrected by steps that run."""

from __future__ import annotations

import math
from bisect import bisect_left

from edgeagent.types.step_costs import TILE

# How far one step moves what is expected of steps of its size, and of all steps with prompts: a device
# that heats up is noticed within a few steps, one slow step does not halve the chunk.
LOCAL_WEIGHT = 0.1
COMMON_WEIGHT = 0.15
# A step that takes longer than this many times what was expected says as much as one at the bound.
LARGEST_ERROR = 4.0


class CostCurve:
    """The curve is not smooth: llama.cpp computes attention in another way from `TILE` tokens on, and no
    interpolation crosses that. Engine thread only."""

    def __init__(self, step_s: dict[int, float]) -> None:
        self.sizes = sorted(step_s)
        self._base = [step_s[n] for n in self.sizes]
        self._local = [0.0] * len(self.sizes)  # logarithms of factors
        self._common = 0.0

    def seconds(self, n_tokens: int, attention_s: float, *, has_prompts: bool) -> float:
        """Of a step of so many tokens, whose attention adds `attention_s`."""
        low, high, share = self._place(n_tokens)
        factor = (1 - share) * self._local[low] + share * self._local[high]
        if has_prompts:
            factor += self._common
        base = (1 - share) * self._base[low] + share * self._base[high]
        if low == high:
            base *= n_tokens / self.sizes[low]
        return (base + attention_s) * math.exp(factor)

    def learn(self, n_tokens: int, ratio: float, *, has_prompts: bool) -> None:
        """A step took `ratio` times what was expected."""
        bound = math.log(LARGEST_ERROR)
        error = max(-bound, min(bound, math.log(max(ratio, 1e-9))))
        low, high, share = self._place(n_tokens)
        self._local[low] += LOCAL_WEIGHT * (1 - share) * error
        if high != low:
            self._local[high] += LOCAL_WEIGHT * share * error
        if has_prompts:
            self._common += COMMON_WEIGHT * error

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
