"""The order of what was found by words and by vectors."""

from __future__ import annotations

import pytest

from edgeagent.knowledge.fusion import fused


@pytest.mark.parametrize(
    ("by_words", "similarity", "order"),
    [
        ([], {}, []),
        ([3, 1, 2], {}, [3, 1, 2]),
        ([], {1: 0.4, 2: 0.6}, [2, 1]),
        # The first place among the words is worth a tenth of a cosine, and no more.
        ([1], {1: 0.55, 2: 0.6}, [1, 2]),
        ([1], {1: 0.45, 2: 0.6}, [2, 1]),
        # One without a vector comes behind, unless its words are the only thing that tells.
        ([9], {1: 0.9, 2: 0.5}, [1, 9, 2]),
        ([7, 8, 9], {1: 0.9, 2: 0.7}, [1, 7, 8, 9, 2]),
    ],
)
def test_the_vectors_decide_and_words_help(
    by_words: list[int], similarity: dict[int, float], order: list[int]
) -> None:
    assert fused(by_words, similarity) == order


def test_without_weight_words_only_add_what_the_vectors_did_not_find() -> None:
    assert fused([5, 2], {1: 0.3, 2: 0.2}, words_weight=0.0) == [1, 2, 5]
