"""Which channel speaks: found in levels, given to words, and never by the starts of segments."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from edgeagent.speech.channels import (
    ChannelSurvey,
    attributed,
    do_overlap,
    interleaved,
    speaker_name,
)
from edgeagent.speech.segments import Segment, Word
from edgeagent.speech.vad import RATE_HZ
from edgeagent.speech.windows import whole
from tests.speech.recordings import dialogue


def voice(
    spans: list[tuple[float, float]], length_s: float, seed: int, gain: float = 0.2
) -> np.ndarray:
    rng = np.random.default_rng(seed)
    samples = rng.standard_normal(round(length_s * RATE_HZ)).astype(np.float32) * 1e-4
    for start, end in spans:
        part = slice(round(start * RATE_HZ), round(end * RATE_HZ))
        samples[part] += gain * rng.standard_normal(part.stop - part.start).astype(np.float32)
    return samples


def differ(*channels: np.ndarray) -> bool:
    survey = ChannelSurvey()
    block = np.stack(channels)
    for i in range(0, block.shape[1], RATE_HZ):
        survey.feed(block[:, i : i + RATE_HZ])
    return survey.do_differ


ONE = voice([(0, 2), (5, 7)], 10, 1)
OTHER = voice([(2.5, 4.5), (7.5, 9.5)], 10, 2)


@pytest.mark.parametrize(
    ("channels", "expected"),
    [
        ((ONE,), False),
        ((ONE, OTHER), True),
        ((ONE + 0.1 * OTHER, OTHER + 0.1 * ONE), True),  # each microphone hears the other a little
        ((ONE + OTHER, ONE + OTHER), False),  # a mono recording in two channels
        ((ONE + OTHER, 0.7 * (ONE + OTHER)), False),
        ((ONE + OTHER, np.zeros_like(ONE)), False),  # one microphone not plugged in
        ((ONE + OTHER, voice([], 10, 3)), False),
        ((np.zeros_like(ONE), np.zeros_like(ONE)), False),
        ((ONE[:100], OTHER[:100]), False),  # shorter than a frame
    ],
)
def test_channels_differ_where_each_has_a_voice_of_its_own(channels, expected):
    assert differ(*channels) is expected


def test_the_channels_of_the_dialogue_differ():
    assert differ(*dialogue())


def words(*times: tuple[str, float, float]) -> tuple[Word, ...]:
    return tuple(Word(text=f" {t}", start_s=a, end_s=b, confidence=0.9) for t, a, b in times)


def segment(found: tuple[Word, ...]) -> Segment:
    return Segment(
        start_s=found[0].start_s,
        end_s=found[-1].end_s,
        text="".join(word.text for word in found),
        words=found,
        tokens=(1, 2, 3),
    )


def told(segments: Iterator[Segment]) -> list[tuple[str | None, str]]:
    return [(s.speaker, s.text.strip()) for s in segments]


def test_words_belong_to_the_louder_channel_and_cut_segments():
    window = whole(np.stack((ONE, OTHER)), 0)
    given = segment(
        words(("how", 0.2, 1), ("fine", 2.6, 3.4), ("thanks", 3.4, 4.2), ("good", 5.1, 6))
    )
    found = list(attributed([given], window, ()))
    assert told(iter(found)) == [("A", "how"), ("B", "fine thanks"), ("A", "good")]
    assert [s.channel for s in found] == [0, 1, 0]
    assert (found[1].start_s, found[1].end_s) == (2.6, 4.2)
    assert all(word.speaker == s.speaker for s in found for word in s.words)


def test_a_word_between_two_voices_stays_with_the_speaker_before():
    window = whole(np.stack((ONE, OTHER)), 0)
    given = segment(words(("yes", 1.0, 1.9), ("er", 2.1, 2.3), ("no", 2.6, 3.0)))
    assert told(attributed([given], window, ("doctor", "patient"))) == [
        ("doctor", "yes er"),
        ("patient", "no"),
    ]


def test_turns_are_in_the_order_of_their_words_not_of_their_segments():
    doctor = segment(
        words(("does", 0.0, 0.3), ("it", 0.3, 0.5), ("since", 4.0, 4.3), ("when", 4.3, 4.6))
    )
    patient = segment(words(("yes", 1.0, 1.3), ("monday", 5.0, 5.5)))
    assert told(interleaved([[doctor], [patient]], ())) == [
        ("A", "does it"),
        ("B", "yes"),
        ("A", "since when"),
        ("B", "monday"),
    ]


def test_two_voices_at_once_are_noticed_and_bleed_is_not():
    both = [(0.5, 3.0)]
    one, other = voice(both, 4, 4), voice(both, 4, 5)
    assert do_overlap(whole(np.stack((one, other)), 0))
    assert not do_overlap(whole(np.stack((one, 0.4 * np.roll(one, 40))), 0))
    assert not do_overlap(whole(np.stack((ONE, OTHER)), 0))
    assert not do_overlap(whole(one[None], 0))


def test_speakers_without_names_are_letters():
    assert [speaker_name(i, ("nurse",)) for i in range(3)] == ["nurse", "B", "C"]
