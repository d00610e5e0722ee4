"""Which passage holds what a sentence of an answer says. Pure.

A sentence is supported by the passage that has most of its content words, at least `LEAST` of them by
length, and all of its numbers. This is a check of words, not of meaning: "not" makes no difference to it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from edgeagent.knowledge.sentences import Span, sentence_spans
from edgeagent.knowledge.words import content_words

LEAST = 0.6
_NUMBER = re.compile(r"\d+(?:[.,:]\d+)*")
_LIST_MARK = re.compile(r"\A\s*(?:\d{1,3}[.)]|[-*•])\s+")
_MARK = re.compile(r"\[\d{1,2}\]")


class Citation(NamedTuple):
    """A sentence and the number of the passage that supports it; None: none does."""

    span: Span
    passage: int | None


class PassageWords(NamedTuple):
    """What is compared of a passage."""

    words: set[str]
    numbers: set[str]


def words_of(passage: str) -> PassageWords:
    return PassageWords(content_words(passage), set(_NUMBER.findall(passage)))


def cite(text: str, passages: Sequence[PassageWords]) -> list[Citation]:
    """The sentences of an answer with their passages. Sentences without content words are left out."""
    found = []
    for span in sentence_spans(text):
        sentence = bare(text[span.start : span.end])
        words = content_words(sentence)
        if words:
            numbers = set(_NUMBER.findall(sentence))
            found.append(Citation(span, _supporting(words, numbers, passages)))
    return found


def bare(sentence: str) -> str:
    """A sentence without the number of a list before it and without marks such as [1]."""
    return _MARK.sub("", _LIST_MARK.sub("", sentence))


def _supporting(words: set[str], numbers: set[str], passages: Sequence[PassageWords]) -> int | None:
    total = sum(map(_weight, words))
    best, most = None, LEAST
    for number, passage in enumerate(passages):
        if not numbers <= passage.numbers:
            continue
        share = sum(_weight(word) for word in words if word in passage.words) / total
        if share >= most and (best is None or share > most):
            best, most = number, share
    return best


def _weight(word: str) -> int:
    return min(len(word), 8)
