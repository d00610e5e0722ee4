"""Improbable words and loops are left out; what people do repeat stays."""

from __future__ import annotations

import pytest

from edgeagent.speech.hallucination_filter import believed, without_loops
from edgeagent.speech.segments import Segment, Word


def segment(text: str, confidence: float = 0.9, **fields: float) -> Segment:
    words = tuple(
        Word(text=f" {word}", start_s=i * 0.3, end_s=i * 0.3 + 0.2, confidence=confidence)
        for i, word in enumerate(text.split())
    )
    return Segment(start_s=0, end_s=words[-1].end_s, text=f" {text}", words=words, **fields)


@pytest.mark.parametrize(
    ("confidence", "no_speech_prob", "speech_s", "is_believed"),
    [
        (0.9, 0.0, 10.0, True),
        (0.2, 0.0, 10.0, False),
        (0.4, 0.0, 10.0, True),
        (0.4, 0.9, 10.0, False),
        (0.4, 0.0, 0.3, False),
        (0.8, 0.9, 0.3, True),
    ],
)
def test_words_must_be_likely_and_likelier_where_there_is_doubt(
    confidence, no_speech_prob, speech_s, is_believed
):
    found = segment("thank you", confidence, no_speech_prob=no_speech_prob)
    assert believed(found, speech_s) is is_believed


def test_a_segment_without_words_is_left_to_the_models_own_guards():
    assert believed(Segment(start_s=0, end_s=1, text="hello"), 10.0)


def test_a_phrase_that_loops_is_kept_once():
    (found,) = without_loops([segment("and then " + "he said no " * 9 + "he left")])
    assert found.text == " and then he said no he left"
    assert [word.text for word in found.words][-2:] == [" he", " left"]
    assert found.end_s == found.words[-1].end_s


def test_people_may_repeat_themselves():
    given = [segment("no no no no I did not")]
    assert list(without_loops(given)) == given


def test_segments_that_repeat_each_other_end():
    assert len(list(without_loops([segment("thank you")] * 40))) == 5
