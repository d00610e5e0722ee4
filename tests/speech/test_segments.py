"""Pieces of a sentence are one segment."""

from __future__ import annotations

import msgspec
import pytest

from edgeagent.speech.segments import Segment, Word, text_of, without_stubs


def segment(text: str, start_s: float, avg_logprob: float = -0.3) -> Segment:
    """One whose words take a third of a second each."""
    words = text.split()
    timed = tuple(
        Word(text=f" {word}", start_s=start_s + i / 3, end_s=start_s + (i + 1) / 3)
        for i, word in enumerate(words)
    )
    return Segment(
        start_s=start_s, end_s=start_s + len(words) / 3, text=f" {text}", words=timed,
        tokens=tuple(range(len(words))), avg_logprob=avg_logprob,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("first", "second", "pause_s", "n"),
    [
        ("When did the headache", "start?", 0.0, 1),
        ("When", "did the headache start?", 0.04, 1),
        ("When did the headache", "start?", 0.3, 2),  # they do not touch
        ("It hurts.", "No.", 0.0, 2),  # two sentences
        ("When did the headache", "start in the morning?", 0.0, 2),  # no stub
    ],
)
def test_a_stub_is_joined_with_the_rest_of_its_sentence(first, second, pause_s, n):
    before = segment(first, 1.0)
    after = segment(second, before.end_s + pause_s)
    found = without_stubs([before, after])
    assert len(found) == n
    assert text_of(found) == f"{first} {second}"
    assert [w for s in found for w in s.words] == [*before.words, *after.words]
    assert sum(len(s.tokens) for s in found) == len(before.tokens) + len(after.tokens)
    assert (found[0].start_s, found[-1].end_s) == (before.start_s, after.end_s)


def test_segments_of_two_passes_or_speakers_and_without_words_stay():
    before, after = segment("When did the headache", 1.0), segment("start?", 2.333, -0.5)
    assert without_stubs([before, after]) == [before, after]
    of_others = [
        msgspec.structs.replace(segment("When did the headache", 1.0), speaker="A"),
        msgspec.structs.replace(segment("start?", 2.333), speaker="B"),
    ]
    assert without_stubs(of_others) == of_others
    bare = [Segment(start_s=0.0, end_s=1.0, text=" a"), Segment(start_s=1.0, end_s=2.0, text=" b")]
    assert without_stubs(bare) == bare
