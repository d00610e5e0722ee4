"""Where a text stood before, and how it went on there."""

from __future__ import annotations

from array import array

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeagent.engine.batching.prompt_lookup import (
    LONGEST_MATCH,
    SHORTEST_MATCH,
    Draft,
    TokenPairs,
    find_draft,
)


@pytest.mark.parametrize(
    ("text", "n_max", "draft", "n_matched"),
    [
        ([1, 2, 3, 4, 5, 9, 1, 2], 3, [3, 4, 5], 2),
        ([1, 2, 3, 4, 5, 9, 1, 2], 2, [3, 4], 2),
        ([1, 2, 3, 7, 1, 2, 4, 8, 1, 2], 1, [4], 2),  # the latest of equal matches
        ([5, 1, 2, 3, 7, 6, 1, 2, 4, 5, 1, 2], 2, [3, 7], 3),  # a longer match is better
        ([1, 2, 9, 1, 2], 7, [9, 1, 2, 9, 1, 2, 9], 2),  # to the end, and around again
        ([4, 4, 4], 3, [4, 4, 4], 2),
        ([7, 7, 8, 7, 7], 1, [8], 2),
    ],
)
def test_a_text_goes_on_as_it_did_where_its_end_stood_before(text, n_max, draft, n_matched):
    assert find_draft(array("i", text), n_max) == Draft(array("i", draft), n_matched)


@pytest.mark.parametrize("text", [[], [1], [1, 2], [1, 2, 3, 4], [2, 9, 1, 2], [1, 3, 1, 2]])
def test_an_end_that_is_new_has_no_draft(text):
    assert find_draft(array("i", text), 4) is None


def test_a_draft_of_no_tokens_is_none():
    assert find_draft(array("i", [1, 2, 1, 2]), 0) is None


@pytest.mark.parametrize(
    ("prediction", "text", "draft", "n_matched", "is_predicted"),
    [
        ([8, 9, 1, 2, 3], [5, 8, 9, 1], [2, 3], 3, True),  # no further than it goes
        ([8, 9, 1, 2, 3, 4], [5, 8, 9], [1, 2, 3], 2, True),
        ([1, 2, 7], [1, 2, 3, 1, 2], [3, 1, 2], 2, False),  # of equal matches the latest
        ([5, 1, 2, 7], [1, 2, 3, 5, 1, 2], [7], 3, True),
        ([1, 2, 3], [6, 7, 8, 6, 7], [8, 6, 7], 2, False),
    ],
)
def test_what_the_client_expects_is_a_source_too(prediction, text, draft, n_matched, is_predicted):
    found = find_draft(array("i", text), 3, array("i", prediction))
    assert found == Draft(array("i", draft), n_matched, is_predicted=is_predicted)


def test_a_prediction_that_is_over_has_no_draft():
    assert find_draft(array("i", [5, 2, 3]), 3, array("i", [1, 2, 3])) is None


@given(st.lists(st.integers(0, 3), max_size=40), st.integers(1, 12))
def test_the_match_is_the_longest_and_the_draft_follows_it(text: list[int], n_max: int):
    tokens = array("i", text)
    draft = find_draft(tokens, n_max)
    n = len(text)
    longest = 0
    for end in range(n - 1):  # the last token of an earlier place
        size = 0
        while size <= end and text[end - size] == text[n - 1 - size]:
            size += 1
        longest = max(longest, size)
    if longest < SHORTEST_MATCH:
        assert draft is None
        return
    assert draft is not None
    assert draft.n_matched == min(longest, LONGEST_MATCH)
    assert len(draft.tokens) == n_max
    whole = text[n - draft.n_matched :] + list(draft.tokens)
    said = text + list(draft.tokens)
    starts = range(n - draft.n_matched)
    assert any(said[i : i + len(whole)] == whole for i in starts)
    tokens.append(1)  # no view of the text is left behind


@given(st.lists(st.integers(0, 3), max_size=24), st.lists(st.integers(1, 5), max_size=6))
def test_pairs_say_whether_there_is_a_draft_as_a_text_grows(tokens: list[int], steps: list[int]):
    pairs, n = TokenPairs(), 0
    for step in [*steps, 24]:
        n = min(len(tokens), n + step)
        text = array("i", tokens[:n])
        assert pairs.repeats(text) == (find_draft(text, 1) is not None)


def test_a_text_that_was_cut_is_looked_at_again():
    pairs = TokenPairs()
    assert not pairs.repeats(array("i", [1, 2, 3, 4, 5]))
    assert not pairs.repeats(array("i", [1, 2]))
    assert pairs.repeats(array("i", [1, 2, 3, 4, 5, 1, 2]))
