"""The time between two tokens of an answer, counted once for each step."""

from __future__ import annotations

from bisect import bisect_left

from edgeagent.types.histogram import TOKEN_GAP_BOUNDS_S, Histogram


class TokenGaps:
    """Counts gaps since the start of the worker. Engine thread only.

    Every decoding sequence has a token in each step, so that the time from the end of one step to the end of
    the next is the gap of all of them. Drafted tokens come without a gap and are not counted.
    """

    def __init__(self) -> None:
        self._counts = [0] * (len(TOKEN_GAP_BOUNDS_S) + 1)
        self._total_s = 0.0
        self._last_s = 0.0

    def end_step(self, n_decode: int, now_s: float) -> None:
        """A step has ended that computed the next token of `n_decode` sequences."""
        gap_s, self._last_s = now_s - self._last_s, now_s
        if n_decode:
            self._counts[bisect_left(TOKEN_GAP_BOUNDS_S, gap_s)] += n_decode
            self._total_s += n_decode * gap_s

    @property
    def histogram(self) -> Histogram:
        return Histogram(tuple(self._counts), self._total_s)
