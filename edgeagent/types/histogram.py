"""How often values fell into ranges: counted in a worker, shown by the daemon."""

from __future__ import annotations

import msgspec


class Histogram(msgspec.Struct, frozen=True, array_like=True):
    """`counts[i]` values were at most `bounds[i]` of the meter and above the bound before; the last count
    has those above all bounds. Without values `counts` is empty. `total` is the sum of all values."""

    counts: tuple[int, ...] = ()
    total: float = 0.0

    def plus(self, other: Histogram) -> Histogram:
        """The values of both, which were counted with the same bounds."""
        if not (self.counts and other.counts):
            return self if self.counts else other
        counts = tuple(map(sum, zip(self.counts, other.counts, strict=True)))
        return Histogram(counts, self.total + other.total)


# Seconds between two tokens of an answer. Source: the buckets of vLLM's inter_token_latency_seconds.
TOKEN_GAP_BOUNDS_S = (
    0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0,
)  # fmt: skip
