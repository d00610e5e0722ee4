"""The turns of one live session to text, quickly enough to follow speech. Worker side, one thread.

Whisper computes on 30 seconds, however little was said; here the encoder sees what there is and `MARGIN_S`
more, which takes a fraction of the time. Short audio alone makes it guess, so that the turns before are heard
again with each turn, their text given. A long turn needs no others, but loses sentences without times: it is
heard like a recording, in a whole window, with the temperature fallback and all guards; so is a turn whose
text is doubtful.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import msgspec
import numpy as np

from edgeagent.speech.hallucination_filter import is_believable
from edgeagent.speech.local_agreement import units_of
from edgeagent.speech.options import SpeechOptions
from edgeagent.speech.segments import TokenScore
from edgeagent.speech.turns import Turn
from edgeagent.speech.vad import RATE_HZ, Samples, Stretch
from edgeagent.speech.whisper import QuickText, Whisper
from edgeagent.speech.windows import Piece, Window

# Turns before that are heard again, with the turn itself.
CONTEXT_S = 12.0
# What the encoder sees at least, and behind the end of the turn.
MIN_WINDOW_S, MARGIN_S = 15.0, 3.0
DRAFT_BEAMS = 1
# A turn with so much speech is long; with so few words it has lost some.
LONG_S, MIN_WORDS_PER_S = 7.0, 1.0


@dataclass(frozen=True)
class HeardTurn:
    """The text of a turn that has ended; empty where nothing was said."""

    text: str
    language: str
    logprobs: tuple[TokenScore, ...] = ()


@dataclass(frozen=True, eq=False)
class _Before:
    samples: Samples
    text: str


class TurnHearing:
    """The hearing of one session, turn after turn."""

    def __init__(self, whisper: Whisper, options: SpeechOptions) -> None:
        """What was said before is heard again rather than read, and words are needed for the guards.

        Raises: InvalidParameter.
        """
        options = msgspec.structs.replace(options, is_conditioned=False, has_words=True)
        self._session = whisper.session(options)
        self._before: deque[_Before] = deque()

    def draft(self, turn: Turn) -> str | None:
        """The text of a turn that goes on; None where the model doubts it."""
        found = self._quick(turn, DRAFT_BEAMS)
        return found.text if self._is_believable(found, turn) else None

    def final(self, turn: Turn) -> HeardTurn:
        """The text of a whole turn."""
        options = self._session.options
        if turn.speech_s >= LONG_S:
            return self._carefully(turn)
        found = self._quick(turn, options.beam_size)
        if self._is_doubtful(found, turn):
            return self._carefully(turn)
        if not self._is_believable(found, turn):
            return HeardTurn("", found.language)
        logprobs = self._session.scores_of(found) if options.has_logprobs else ()
        return HeardTurn(found.text, found.language, logprobs)

    def keep(self, turn: Turn, text: str) -> None:
        """A turn with the text that was given out, for those that follow."""
        self._before.append(_Before(turn.samples, text))
        self._shorten(0)

    def _shorten(self, n_samples: int) -> None:
        """Forget the oldest turns that have no place before `n_samples` of a new one."""
        room = round(CONTEXT_S * RATE_HZ) - n_samples
        while self._before and sum(len(one.samples) for one in self._before) > room:
            self._before.popleft()

    def _quick(self, turn: Turn, beam_size: int) -> QuickText:
        self._shorten(len(turn.samples))
        samples = np.concatenate([*(one.samples for one in self._before), turn.samples])
        seconds = max(MIN_WINDOW_S, len(samples) / RATE_HZ + MARGIN_S)
        told = "".join(one.text for one in self._before)
        return self._session.hear_quickly(samples, told, seconds=seconds, beam_size=beam_size)

    def _is_believable(self, found: QuickText, turn: Turn) -> bool:
        return bool(found.tokens) and is_believable(
            found.confidence,
            speech_s=turn.speech_s,
            no_speech_prob=found.no_speech_prob,
            avg_logprob=found.avg_logprob,
        )

    def _is_doubtful(self, found: QuickText, turn: Turn) -> bool:
        """Whether the model repeats itself, is unsure, or has stopped before the turn was over."""
        options = self._session.options
        return (
            len(units_of(found.text)) < MIN_WORDS_PER_S * turn.speech_s
            or found.avg_logprob < options.logprob_threshold
            or found.compression_ratio > options.compression_ratio_threshold
        )

    def _carefully(self, turn: Turn) -> HeardTurn:
        """By itself, as a window of a recording; what the guards leave of it."""
        n = len(turn.samples)
        speech = Stretch(
            max(0, turn.speech_start - turn.start), min(n, turn.speech_end - turn.start)
        )
        window = Window(turn.samples, turn.samples[None], (Piece(0, n, 0),), (speech,))
        segments = list(self._session.hear(window))
        if self._session.options.has_logprobs:
            segments = self._session.scored(segments, window.samples)
        return HeardTurn(
            "".join(segment.text for segment in segments),
            self._session.language or "",
            tuple(score for segment in segments for score in segment.logprobs),
        )
