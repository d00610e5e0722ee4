"""Finds how a text may go on: as it went on where its last tokens stood before, in prompt or answer.

Answers that copy (notes, extraction, rewriting, code) are drafted this way without a second model.
Source: Saxena 2023, "Prompt Lookup Decoding"; Yang et al. 2023, arXiv:2304.04487.
"""

from __future__ import annotations

from array import array
from typing import NamedTuple

import numpy as np

# A single token that occurred before says too little; beyond the longest, a longer match says nothing more.
SHORTEST_MATCH = 2
LONGEST_MATCH = 16
NO_TOKENS = array("i")
END = array("i", [-1])  # between prediction and text: no token


class Draft(NamedTuple):
    """What may follow a text, and how many of its last tokens also stand before the draft's source.
    `is_predicted`: the source is what the client expects."""

    tokens: array[int]
    n_matched: int
    is_predicted: bool = False


def find_draft(text: array[int], n_max: int, prediction: array[int] = NO_TOKENS) -> Draft | None:
    """At most `n_max` tokens that may follow `text`: int32 [n]. None if its last tokens are new.

    The source is the longest match in the `prediction` or the text, of several the latest. Text that repeats
    itself is drafted on in its period. 4,000 tokens cost about 20 us.
    """
    n_predicted = len(prediction)
    if n_predicted:
        text = prediction + END + text
    n = len(text)
    if n <= SHORTEST_MATCH or n_max < 1:
        return None
    ids = np.frombuffer(text, np.int32)
    ends = np.flatnonzero(ids[1 : n - 1] == ids[n - 1]) + 1  # where the last token stands too
    ends = ends[ids[ends - 1] == ids[n - 2]]
    if not ends.size:
        return None
    n_matched = SHORTEST_MATCH
    while n_matched < LONGEST_MATCH:
        longer = ends[ends >= n_matched]
        longer = longer[ids[longer - n_matched] == ids[n - 1 - n_matched]]
        if not longer.size:
            break
        ends, n_matched = longer, n_matched + 1
    first = int(ends[-1]) + 1
    if first <= n_predicted and n_predicted:
        found = text[first : min(first + n_max, n_predicted)]
        return Draft(found, n_matched, is_predicted=True) if found else None
    found = text[first : first + n_max]
    while len(found) < n_max:
        found += found[: n_max - len(found)]
    return Draft(found, n_matched)
