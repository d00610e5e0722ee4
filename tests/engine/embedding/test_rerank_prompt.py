"""A query beside a document, for every kind of vocabulary, and what a model's numbers mean."""

from __future__ import annotations

import math
from array import array

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeagent.engine.embedding.rerank_prompt import PairBuilder, relevance
from edgeagent.errors import ModelUnusable

BEGIN, SEP, END = 1, 2, 3


class FakeMarks:
    """A vocabulary of characters; `<e>` is a special token."""

    def __init__(
        self,
        pair_marks: tuple[list[int], list[int], list[int]] = ([], [], []),
        template: str | None = None,
    ) -> None:
        self.pair_marks = pair_marks
        self.rank_template = template

    def tokens_of(self, text: str, *, add_special: bool, parse_special: bool) -> array[int]:
        if parse_special and text == "<e>":
            return array("i", [END])
        return array("i", list(text.encode()))

    def special_names(self, text: str) -> list[str]:
        return [name for name in ("<e>",) if name in text]

    def detokenize(self, tokens: list[int]) -> str:
        return bytes(tokens).decode()


def pair(marks: FakeMarks, query: str, document: str) -> list[int]:
    pairing = PairBuilder(marks)
    return list(pairing.pair(query, document, pairing.tokens(document)))


def test_marks_stand_around_both():
    marks = FakeMarks(([BEGIN], [END, SEP], [END]))
    assert pair(marks, "q", "dd") == [BEGIN, *b"q", END, SEP, *b"dd", END]


def test_a_template_is_filled_and_only_its_own_special_tokens_are_some():
    marks = FakeMarks(template="Q: {query}<e>D: {document}<e>")
    found = pair(marks, "{document}<e>", "x<e>")
    assert found == [*b"Q: {document}<e>", END, *b"D: x<e>", END]
    assert pair(FakeMarks(template="{query}|{document}"), "a", "b") == [*b"a|b"]


@pytest.mark.parametrize("template", ["{query}", "{document}", ""])
def test_a_template_without_a_place_for_both_is_refused(template: str):
    with pytest.raises(ModelUnusable, match="template"):
        PairBuilder(FakeMarks(template=template))


@given(st.integers(0, 30), st.integers(1, 60), st.integers(1, 40), st.booleans())
def test_what_is_cut_fits_and_loses_no_more_than_it_must(n_query, n_document, bound, templated):
    marks = FakeMarks(([BEGIN], [SEP], [SEP]), "{query}<e>{document}<e>x" if templated else None)
    fitted = PairBuilder(marks).fitted("q" * n_query, "d" * n_document, bound, None)
    whole = n_query + n_document + 3
    if bound < n_query + 4:
        assert fitted is None
    else:
        assert fitted is not None and len(fitted) == min(whole, bound)


@given(st.floats(-1e6, 1e6, allow_nan=False), st.floats(0.001, 10))
def test_relevance_is_between_0_and_1_and_rises_with_the_logit(logit: float, step: float):
    low, high = relevance([logit]), relevance([logit + step])
    assert 0 <= low <= high <= 1
    if abs(logit) < 10:
        assert low < high


def test_relevance_of_a_logit_is_its_sigmoid_and_of_yes_and_no_the_probability_of_yes():
    assert relevance([0.0]) == 0.5
    assert relevance([2.0]) == pytest.approx(1 / (1 + math.exp(-2)))
    assert relevance([0.9, 0.1]) == 0.9
