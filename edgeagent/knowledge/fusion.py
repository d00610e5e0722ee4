"""Joins passages found by words and by vectors into one order. Pure.

The cosine of the vectors decides, and a high rank in the list of words adds to it. Reciprocal ranks of both
lists, fused with equal weights, found less than the vectors alone (`scripts/bench knowledge-calibration`):
few words of a question are those of its answer.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import TypeVar

One = TypeVar("One", bound=Hashable)

WORDS_WEIGHT = 0.1  # cosine that the first place in the list of words is worth
HALVED = 10  # so many places further it is worth half
# One without a vector is this much below the least similar one that was found.
BELOW = 0.02


def fused(
    by_words: Sequence[One], similarity: Mapping[One, float], *, words_weight: float = WORDS_WEIGHT
) -> list[One]:
    """All that was found, the best first; by words alone in their order where nothing has a vector."""
    least = min(similarity.values(), default=0.0) - BELOW
    scores = dict(similarity)
    for rank, one in enumerate(by_words):
        scores[one] = scores.get(one, least) + words_weight * HALVED / (HALVED + rank)
    return sorted(scores, key=lambda one: -scores[one])
