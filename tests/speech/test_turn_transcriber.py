"""When a turn is heard quickly, when with care, and with which turns before it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from edgeagent.speech.options import SpeechOptions
from edgeagent.speech.segments import Segment
from edgeagent.speech.turn_transcriber import CONTEXT_S, MARGIN_S, MIN_WINDOW_S, TurnHearing
from edgeagent.speech.turns import Turn
from edgeagent.speech.vad import RATE_HZ
from edgeagent.speech.whisper import QuickText


class Model:
    """Whisper and its session: hears what it is told to, quickly or with care."""

    def __init__(self, quick: str = " all is well", confidence: float = 0.9) -> None:
        self.quick, self.confidence = quick, confidence
        self.asked: list[tuple[float, str, float, int]] = []
        self.n_careful = 0
        self.language = "en"
        self.options = SpeechOptions()

    def session(self, options: SpeechOptions) -> Any:
        self.options = options
        return self

    def hear_quickly(self, samples: Any, told: str, *, seconds: float, beam_size: int) -> QuickText:
        self.asked.append((len(samples) / RATE_HZ, told, seconds, beam_size))
        n = len(self.quick.split())
        return QuickText(self.quick, tuple(range(n)), (self.confidence,) * n, 0.1, "en")

    def hear(self, window: Any) -> list[Segment]:
        self.n_careful += 1
        assert 0 < window.speech_s <= len(window.samples) / RATE_HZ
        return [Segment(start_s=0.0, end_s=1.0, text=" with care")]


def hearing(model: Model) -> TurnHearing:
    found: Any = model
    return TurnHearing(found, SpeechOptions())


def turn(seconds: float, speech_s: float | None = None, at_s: float = 100.0) -> Turn:
    n, start = round(seconds * RATE_HZ), round(at_s * RATE_HZ)
    speech = round((speech_s if speech_s is not None else seconds - 0.6) * RATE_HZ)
    samples = np.zeros(n, dtype=np.float32)
    return Turn(start, start + n, samples, start + 4800, start + 4800 + speech)


def test_a_short_turn_is_heard_quickly_and_without_reading_the_text_before():
    model = Model()
    heard = hearing(model).final(turn(2.0))
    assert (heard.text, heard.language, model.n_careful) == (" all is well", "en", 0)
    assert model.asked == [(2.0, "", MIN_WINDOW_S, 5)]
    assert not model.options.is_conditioned


def test_a_long_turn_is_heard_with_care_at_once():
    model = Model()
    assert hearing(model).final(turn(10.0)).text == " with care"
    assert model.asked == []


@pytest.mark.parametrize(
    ("quick", "confidence", "speech_s"),
    [
        ("", 0.9, 2.0),  # stopped before the turn was over
        (" one", 0.9, 3.0),
        (" no" * 80, 0.9, 3.0),  # repeats itself
        (" all is well", 0.2, 2.0),  # unsure
    ],
)
def test_a_doubtful_turn_is_heard_again_with_care(quick, confidence, speech_s):
    model = Model(quick, confidence)
    assert hearing(model).final(turn(4.0, speech_s)).text == " with care"
    assert model.n_careful == 1


def test_words_that_are_unlikely_in_so_little_speech_were_not_said():
    assert hearing(Model(" you", confidence=0.42)).final(turn(1.0, 0.3)).text == ""


def test_a_draft_says_nothing_it_does_not_believe():
    assert hearing(Model()).draft(turn(2.0)) == " all is well"
    assert hearing(Model(confidence=0.2)).draft(turn(2.0)) is None
    assert hearing(Model("")).draft(turn(2.0)) is None


def test_the_turns_before_are_heard_again_as_far_as_there_is_room():
    model = Model()
    session = hearing(model)
    for number in range(6):
        session.keep(turn(3.0), f" turn {number}")
    session.final(turn(5.0))
    (seconds, told, window_s, _) = model.asked[-1]
    assert told == " turn 4 turn 5"
    assert seconds == 11.0 <= CONTEXT_S
    assert window_s == max(MIN_WINDOW_S, seconds + MARGIN_S)
    session.draft(turn(14.0))
    assert model.asked[-1][:2] == (14.0, "")
