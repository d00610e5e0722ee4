"""The bodies that clients read, against the official client's own types in strict mode."""

from __future__ import annotations

import re

import pytest
from openai.types.audio import (
    Transcription,
    TranscriptionDiarized,
    TranscriptionVerbose,
    TranslationVerbose,
)

from edgeagent.speech import transcript_formats
from edgeagent.speech.languages import LANGUAGES, language_code, language_name
from edgeagent.speech.segments import Segment, TokenScore, Transcript, Word, text_of


def segment(start_s: float, text: str, speaker: str | None = None, **fields: object) -> Segment:
    words = tuple(
        Word(
            text=f" {word}", start_s=start_s + i * 0.5, end_s=start_s + i * 0.5 + 0.4,
            confidence=0.9, speaker=speaker,
        )
        for i, word in enumerate(text.split())
    )  # fmt: skip
    return Segment(
        start_s=start_s, end_s=words[-1].end_s, text=f" {text}", words=words, speaker=speaker,
        **fields,  # type: ignore[arg-type]
    )  # fmt: skip


TWO = Transcript(
    segments=(segment(0.5, "Good morning.", "A"), segment(2.0, "It hurts <here> & there.", "B")),
    language="en",
    duration_s=5.25,
)
EMPTY = Transcript(segments=(), language="en", duration_s=3.0)


@pytest.mark.parametrize("transcript", [TWO, EMPTY])
def test_bodies_are_what_the_official_client_expects(transcript):
    Transcription.model_validate(transcript_formats.as_json(transcript), strict=True)
    TranscriptionDiarized.model_validate(
        transcript_formats.as_diarized_json(transcript), strict=True
    )
    for granularities in ((), ("word",), ("segment",), ("word", "segment")):
        body = transcript_formats.as_verbose_json(transcript, granularities)
        TranscriptionVerbose.model_validate(body, strict=True)
        TranslationVerbose.model_validate(body, strict=True)
        assert ("words" in body) is ("word" in granularities)
        assert ("segments" in body) is (granularities != ("word",))


def test_log_probabilities_come_with_json():
    scored = segment(
        0, "Hi", logprobs=(TokenScore(token=" Hi", logprob=-0.1, bytes=[32, 72, 105]),)
    )
    body = transcript_formats.as_json(Transcript(segments=(scored,), language="en", duration_s=1))
    assert body["logprobs"] == [{"token": " Hi", "logprob": -0.1, "bytes": [32, 72, 105]}]
    assert "logprobs" not in transcript_formats.as_json(TWO)


def test_text_has_a_line_for_each_turn_where_speakers_are_known():
    more = (*TWO.segments, segment(4.0, "And here.", "B"))
    told = transcript_formats.as_text(Transcript(segments=more, language="en", duration_s=6))
    assert told == "A: Good morning.\nB: It hurts <here> & there. And here.\n"
    assert transcript_formats.as_text(EMPTY) == "\n"


def test_srt_and_vtt():
    assert transcript_formats.as_srt(TWO) == (
        "1\n00:00:00,500 --> 00:00:01,400\nA: Good morning.\n\n"
        "2\n00:00:02,000 --> 00:00:04,400\nB: It hurts <here> & there.\n"
    )
    assert transcript_formats.as_vtt(TWO) == (
        "WEBVTT\n\n00:00:00.500 --> 00:00:01.400\n<v A>Good morning.\n\n"
        "00:00:02.000 --> 00:00:04.400\n<v B>It hurts &lt;here&gt; &amp; there.\n"
    )
    assert transcript_formats.as_srt(EMPTY) == ""


def test_hours_are_counted_in_captions():
    late = Transcript(segments=(segment(7325.25, "Bye."),), language="en", duration_s=7400)
    assert "02:02:05,250 --> 02:02:05,650" in transcript_formats.as_srt(late)


def test_long_segments_become_captions_that_can_be_read():
    told = " ".join(f"word{n}" for n in range(60))
    found = list(transcript_formats.captions([segment(0, told)]))
    assert len(found) > 3
    assert all(len(text) <= transcript_formats.CAPTION_CHARS for *_, text in found)
    assert " ".join(text for *_, text in found) == told
    ends = [0.0, *[end for _, end, _, _ in found]]
    assert all(start >= end for (start, *_), end in zip(found, ends, strict=False))


def test_texts_of_two_speakers_do_not_run_into_each_other():
    one = Segment(start_s=0, end_s=1, text="Yes.", speaker="A")
    other = Segment(start_s=1, end_s=2, text="No.", speaker="B")
    assert text_of([one, other]) == "Yes. No."


@pytest.mark.parametrize(
    ("given", "code"),
    [
        ("en", "en"),
        ("EN-us", "en"),
        ("English", "en"),
        ("pt_BR", "pt"),
        ("klingon", None),
        ("", None),
    ],
)
def test_languages_are_known_by_code_and_name(given, code):
    assert language_code(given) == code


def test_every_language_has_a_name():
    assert language_name("de") == "german"
    assert language_name("xx") == "xx"
    assert all(re.fullmatch(r"[a-z ]+", name) for name in LANGUAGES.values())
