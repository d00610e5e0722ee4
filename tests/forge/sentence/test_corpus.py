"""The texts that the small sentence encoder learns from."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgeagent.errors import ForgeFailed
from edgeagent.forge.sentence import corpus

NOUNS = """  1 This software and database is being provided to you
00401639 04 n 01 rejuvenation 0 003 @ 00268557 n 0000 | the act of restoring to a more youthful condition
00401783 04 n 02 refreshment 0 recreation 1 001 @ 00401639 n 0000 | activity that rests; "rest by the pool"
"""
PROGRAMS = """Package: 0ad
Description-md5: d9
Description-en: Real-time strategy game
 A free game of ancient
 warfare.
 .
 More of it.

Package: bare
Description-en: Only a summary
"""


def test_a_definition_stands_with_its_words_or_alone_and_examples_apart(tmp_path: Path):
    path = tmp_path / "data.noun"
    path.write_text(NOUNS)
    assert list(corpus._wordnet(path)) == [
        ("rejuvenation: the act of restoring to a more youthful condition", []),
        ("refreshment, recreation: activity that rests", ["rest by the pool"]),
    ]
    path.write_text("\n".join([*NOUNS.splitlines()[:1] * 3, NOUNS.splitlines()[1]]))
    assert [text for text, _ in corpus._wordnet(path)] == [
        "the act of restoring to a more youthful condition"
    ]


def test_a_description_is_its_first_paragraph_or_its_summary(tmp_path: Path):
    path = tmp_path / "Translation-en"
    path.write_text(PROGRAMS)
    assert list(corpus._programs(path)) == ["A free game of ancient warfare.", "Only a summary"]


def test_an_encyclopedia_becomes_sentences(tmp_path: Path):
    path = tmp_path / "valid.txt"
    path.write_text(
        " = Lobster = \n It grows to 60 cm ( 24 in ) , and lives in the sea . It is @-@ <unk> blue . \n"
    )
    assert list(corpus._encyclopedia(path))[-2:] == [
        "It grows to 60 cm (24 in), and lives in the sea.", "It is- blue.",
    ]  # fmt: skip


def test_a_missing_or_other_text_is_told_with_its_origin(tmp_path: Path):
    with pytest.raises(ForgeFailed, match="WikiText-2"):
        corpus.read(tmp_path, tmp_path)
