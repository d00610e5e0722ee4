"""Joins ranked lists into one. Pure.

Source: reciprocal rank fusion, Cormack, Clarke and Buettcher, SIGIR 2009, with its constant of 60.
"""

from __future__ import annotations

from collections.abc import Sequence

K = 60


def fused(*rankings: Sequence[int], weights: Sequence[float] | None = None) -> list[int]:
    """All that is in one of the rankings, the best first. Equals keep the order in which they came."""
    scores: dict[int, float] = {}
    for ranking, weight in zip(rankings, weights or [1.0] * len(rankings), strict=True):
        for rank, one in enumerate(ranking, 1):
            scores[one] = scores.get(one, 0.0) + weight / (K + rank)
    return sorted(scores, key=lambda one: -scores[one])
