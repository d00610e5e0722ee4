"""Splits text into sentences. Pure; used for chunks and for citations."""

from __future__ import annotations

import re
from typing import NamedTuple

# Words whose full stop ends no sentence.
_WORDS = """
mr mrs ms dr prof st no nos fig figs eq sec vol vs etc approx dept est inc ltd co corp jan feb mar apr
jun jul aug sep sept oct nov dec mon tue wed thu fri sat sun tel ext min max ca cf al e.g i.e a.m p.m
u.s u.k z.b d.h bzw usw ggf inkl nr str abb vgl bspw evtl
"""
_ABBREVIATIONS = frozenset(_WORDS.split())
# A mark, what may close behind it, and space; or a mark of Chinese and Japanese; or a new line.
_END = re.compile(r"[.!?…]+[\"'”’»)\]]*(?=\s)|[。！？]+[」』”]*|\n+")
_WORD_BEFORE = re.compile(r"([\w.]+)$")
_MAX_ABBREVIATION = 12


class Span(NamedTuple):
    """A sentence as a part of its text: [start, end)."""

    start: int
    end: int


def sentence_spans(text: str) -> list[Span]:
    """The sentences of a text, without the space around them. A line break ends one, too."""
    spans: list[Span] = []
    start = 0
    for found in _END.finditer(text):
        if not found[0].startswith("\n") and _is_inside(text, start, found):
            continue
        _add(spans, text, start, found.end())
        start = found.end()
    _add(spans, text, start, len(text))
    return spans


def sentences(text: str) -> list[str]:
    return [text[span.start : span.end] for span in sentence_spans(text)]


def _is_inside(text: str, start: int, mark: re.Match[str]) -> bool:
    """Whether a mark ends no sentence: small letters follow, or it belongs to an abbreviation, an initial or
    the number of a list."""
    if text[mark.end() : mark.end() + 20].lstrip(" ")[:1].islower():
        return True
    if mark[0] != ".":
        return False
    before = _WORD_BEFORE.search(text, max(start, mark.start() - _MAX_ABBREVIATION), mark.start())
    if before is None:
        return False
    word = before[1].lower()
    is_short = word in _ABBREVIATIONS or (len(word) == 1 and word.isalpha())
    is_number = word.isdigit() and len(word) <= 3 and not text[start : before.start()].strip()
    return is_short or is_number


def _add(spans: list[Span], text: str, start: int, end: int) -> None:
    while start < end and text[start].isspace():
        start += 1
    while end > start and text[end - 1].isspace():
        end -= 1
    if end > start:
        spans.append(Span(start, end))
