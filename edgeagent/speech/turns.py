"""The turns of one live stream: where each begins and ends, and its samples. Worker side, one thread."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from edgeagent.speech.live_options import TurnDetection
from edgeagent.speech.vad import (
    RATE_HZ,
    STEP,
    Samples,
    SpeechProbability,
    StretchFinder,
    VadOptions,
)

# Heard behind the end of a turn.
TAIL_S = 0.3
# A turn without a pause is cut after this long, where speech is least likely.
MAX_TURN_S = 20.0


@dataclass(frozen=True)
class TurnStart:
    """A turn has begun at this sample of the stream, its padding included."""

    at: int


@dataclass(frozen=True, eq=False)
class Turn:
    """A part of the stream from sample `start` to `end`, with the speech in it."""

    start: int
    end: int
    samples: Samples
    speech_start: int
    speech_end: int

    @property
    def speech_s(self) -> float:
        return (self.speech_end - self.speech_start) / RATE_HZ


class TurnFinder:
    """Samples in (float32, 16 kHz, mono), turns out. Forgets audio that belongs to none."""

    def __init__(self, options: TurnDetection | None) -> None:
        self._probability = SpeechProbability()
        self._held = np.zeros(0, dtype=np.float32)
        self._first = 0  # the sample of the stream with which `_held` begins
        self._over = 0  # up to here everything belongs to a turn that has ended, or was dropped
        self._is_open = False
        self.change(options)

    def change(self, options: TurnDetection | None) -> None:
        """Go on by other options, where no turn is open (after `flush`)."""
        options = options or TurnDetection()
        self._pad = round(options.prefix_padding_ms * RATE_HZ / 1000)
        found = VadOptions(
            threshold=options.threshold,
            min_silence_duration_ms=options.silence_duration_ms,
            max_speech_duration_s=MAX_TURN_S,
        )
        self._finder = StretchFinder(found, n_seen=self.n_samples // STEP)

    @property
    def n_samples(self) -> int:
        """How much of the stream was looked at."""
        return self._first + len(self._held)

    def feed(self, samples: Samples) -> Iterator[TurnStart | Turn]:
        """What began and what ended within these samples, in order."""
        self._held = np.concatenate((self._held, samples))
        for stretch in self._finder.feed(self._probability.feed(samples)):
            yield from self._ended(stretch.start, stretch.end)
        yield from self._begun()
        self._forget()

    def flush(self) -> Iterator[TurnStart | Turn]:
        """End the turn that is open. The stream goes on behind it, after silence up to a full step."""
        if missing := -self.n_samples % STEP:
            yield from self.feed(np.zeros(missing, dtype=np.float32))
        for stretch in self._finder.feed(np.zeros(0, dtype=np.float32), is_last=True):
            yield from self._ended(stretch.start, stretch.end)
        self._over = self.n_samples
        self._forget()

    def drop(self) -> None:
        """Forget the turn that is open."""
        for _ in self.flush():
            pass
        self._is_open = False

    def open_speech(self) -> tuple[int, int] | None:
        """The samples of the stream between which somebody speaks whose turn has not ended."""
        begun = self._finder.begun_at
        if begun is None or not self._is_open:
            return None
        quiet = self._finder.quiet_since
        return begun, quiet if quiet is not None else self.n_samples

    def open_turn(self) -> Turn | None:
        """The turn that has begun and has not ended, as far as it has come. A copy."""
        speech = self.open_speech()
        return self._turn(*speech) if speech is not None else None

    @property
    def quiet_s(self) -> float:
        """For how long the open turn has been silent."""
        quiet = self._finder.quiet_since
        return (self.n_samples - quiet) / RATE_HZ if quiet is not None else 0.0

    def _begun(self) -> Iterator[TurnStart]:
        if not self._is_open and (at := self._finder.begun_at) is not None:
            self._is_open = True
            yield TurnStart(self._start_of(at))

    def _ended(self, start: int, end: int) -> Iterator[TurnStart | Turn]:
        if not self._is_open:
            yield TurnStart(self._start_of(start))
        turn = self._turn(start, end)
        self._is_open = False
        self._over = turn.end
        yield turn

    def _turn(self, start: int, end: int) -> Turn:
        begin = self._start_of(start)
        # A cut is within speech, which goes on in the next turn.
        is_cut = self._finder.open_since == end
        last = end if is_cut else min(self.n_samples, end + round(TAIL_S * RATE_HZ))
        samples = self._held[begin - self._first : last - self._first].copy()
        return Turn(begin, last, samples, start, end)

    def _start_of(self, speech: int) -> int:
        return max(self._over, speech - self._pad, self._first)

    def _forget(self) -> None:
        keep_from = self._finder.open_since - self._pad
        if keep_from - self._first > RATE_HZ:  # not for every block: it copies the rest
            self._held = self._held[keep_from - self._first :].copy()
            self._first = keep_from
