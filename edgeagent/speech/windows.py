"""Stretches of speech, packed into windows for the model, and the way back to the recording's clock.

A window holds pieces of the recording one after another. Pauses up to `PAUSE_S` stay as they are; of longer
ones only the padding is kept. A window is closed at the longest pause of its last part, so that no word is
cut and no sentence where that can be helped.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgeagent.speech.segments import Word
from edgeagent.speech.vad import RATE_HZ, SpeechProbability, Stretch, StretchFinder, VadOptions

WINDOW_S = 28.0
PAUSE_S = 2.0
# A window is closed within this last part of it.
LATE = 0.6
# How loud each channel is, in a mix: by 10 ms, smoothed over 150 ms.
MIX_FRAME, MIX_SMOOTH = RATE_HZ // 100, 15
_RAMP = ((np.arange(MIX_FRAME) + 0.5) / MIX_FRAME).astype(np.float32)
# Words so near to speech are part of it.
NEAR_S = 0.15

Samples = NDArray[np.float32]


@dataclass(frozen=True)
class Piece:
    """Samples `start` to `end` of the recording, which begin at `at` in the window."""

    start: int
    end: int
    at: int

    @property
    def n(self) -> int:
        return self.end - self.start


@dataclass(frozen=True, eq=False)
class Window:
    """What the model hears at once: float32 [n_samples], its pieces, and the speech in it (sorted).

    `channels` has the same moments channel by channel, float32 [n_channels, n_samples].
    """

    samples: Samples
    channels: Samples
    pieces: tuple[Piece, ...]
    stretches: tuple[Stretch, ...]

    @property
    def start_s(self) -> float:
        return self.pieces[0].start / RATE_HZ

    @property
    def end_s(self) -> float:
        return self.pieces[-1].end / RATE_HZ

    @property
    def speech_s(self) -> float:
        """How much of it is speech."""
        return sum(stretch.end - stretch.start for stretch in self.stretches) / RATE_HZ

    @property
    def speech_end_s(self) -> float:
        """Where speech ends, on the window's own clock."""
        return self.sample_at(self.stretches[-1].end / RATE_HZ) / RATE_HZ

    def is_speech(self, words: Sequence[Word]) -> bool:
        """Whether any of these words was said where speech was found."""
        near = round(NEAR_S * RATE_HZ)
        return any(
            stretch.start - near <= word.middle_s * RATE_HZ <= stretch.end + near
            for word in words
            for stretch in self.stretches
        )

    def sample_at(self, second: float) -> int:
        """Where a moment of the recording is in the window."""
        sample = round(second * RATE_HZ)
        piece = next((p for p in reversed(self.pieces) if p.start <= sample), self.pieces[0])
        return piece.at + min(max(sample - piece.start, 0), piece.n)

    def original_s(self, start_s: float, end_s: float) -> tuple[float, float]:
        """A span of the window on the recording's clock; one piece holds both ends."""
        middle = (start_s + end_s) / 2 * RATE_HZ
        piece = next((p for p in reversed(self.pieces) if p.at <= middle), self.pieces[0])

        def moved(seconds: float) -> float:
            sample = seconds * RATE_HZ - piece.at + piece.start
            return min(max(sample, piece.start), piece.end) / RATE_HZ

        return moved(start_s), moved(end_s)


class WindowMaker:
    """Blocks in (float32 [n_channels, n_samples]), windows of their mix out. One thread."""

    def __init__(self, options: VadOptions) -> None:
        self._options = options
        self._probability = SpeechProbability()
        self._finder = StretchFinder(options)
        self._pad = round(options.speech_pad_ms * RATE_HZ / 1000)
        self._samples: Samples | None = None
        self._first = 0  # the sample of the recording with which `_samples` begins
        self._pending: list[Stretch] = []

    def feed(self, block: Samples, *, is_last: bool = False) -> Iterator[Window]:
        """The windows that are complete with this block."""
        held = block if self._samples is None else np.concatenate((self._samples, block), axis=1)
        self._samples = held
        probabilities = self._probability.feed(mixed(block), is_last=is_last)
        for stretch in self._finder.feed(probabilities, is_last=is_last):
            self._pending.append(stretch)
            while (n := self._n_ready()) is not None:
                yield self._window(n)
        if is_last:
            while self._pending:
                yield self._window(self._n_ready() or len(self._pending))
        self._forget()

    def _n_ready(self) -> int | None:
        """How many pending stretches the next window has; None while more may follow."""
        n_max = round(WINDOW_S * RATE_HZ)
        length = 0
        for i, stretch in enumerate(self._pending):
            if i:
                length += self._gap(i)
            length += stretch.end - stretch.start
            if i and length + 2 * self._pad > n_max:
                return self._cut(i)
        return None

    def _gap(self, i: int) -> int:
        """Samples of pause that are kept before pending stretch `i`."""
        pause = self._pending[i].start - self._pending[i - 1].end
        return pause if pause <= PAUSE_S * RATE_HZ else min(pause, 2 * self._pad)

    def _cut(self, n: int) -> int:
        """The number of stretches, at most `n`, that end at the longest pause of the window's last part."""
        total = self._pending[n - 1].end - self._pending[0].start
        late = [
            i
            for i in range(1, n + 1)
            if self._pending[i - 1].end - self._pending[0].start >= LATE * total
        ]
        return max(late, key=lambda i: (self._pending[i].start - self._pending[i - 1].end, i))

    def _window(self, n: int) -> Window:
        stretches, self._pending = self._pending[:n], self._pending[n:]
        last = self._first + self._held.shape[1]
        spans: list[tuple[int, int]] = []
        for i, stretch in enumerate(stretches):
            start = max(self._first, stretch.start - self._pad)
            end = min(last, stretch.end + self._pad)
            if i and stretch.start - stretches[i - 1].end <= PAUSE_S * RATE_HZ:
                spans[-1] = (spans[-1][0], end)
            elif i:
                spans.append((max(start, spans[-1][1]), end))
            else:
                spans.append((start, end))
        if self._pending:  # what follows is heard in the next window
            bound = (stretches[-1].end + self._pending[0].start) // 2
            spans[-1] = (spans[-1][0], max(stretches[-1].end, min(spans[-1][1], bound)))
        return self._cut_out(spans, stretches)

    def _cut_out(self, spans: list[tuple[int, int]], stretches: list[Stretch]) -> Window:
        pieces, parts, at = [], [], 0
        for start, end in spans:
            pieces.append(Piece(start, end, at))
            parts.append(self._held[:, start - self._first : end - self._first])
            at += end - start
        channels = np.concatenate(parts, axis=1)
        return Window(mixed(channels), channels, tuple(pieces), tuple(stretches))

    @property
    def _held(self) -> Samples:
        assert self._samples is not None
        return self._samples

    def _forget(self) -> None:
        """Let go of audio that no window will need any more."""
        needed = self._pending[0].start if self._pending else self._finder.open_since
        keep_from = max(self._first, needed - self._pad - RATE_HZ)
        self._samples = self._held[:, keep_from - self._first :].copy()
        self._first = keep_from


def mixed(channels: Samples) -> Samples:
    """All channels as one: float32 [n_samples].

    Each moment is the mean of the channels, weighted by how loud they are then: a mean without weights adds
    the noise of whoever is silent to the voice of whoever speaks. Equal channels give the plain mean.
    """
    n_frames = channels.shape[1] // MIX_FRAME
    if len(channels) == 1:
        only: Samples = channels[0]
        return only
    if not n_frames:
        return np.asarray(channels.mean(axis=0), dtype=np.float32)
    end = n_frames * MIX_FRAME
    frames = channels[:, :end].reshape(len(channels), n_frames, MIX_FRAME)
    levels = np.sqrt(np.einsum("cfs,cfs->cf", frames, frames) / MIX_FRAME)
    smooth = np.full(min(MIX_SMOOTH, n_frames), 1 / MIX_SMOOTH)
    levels = np.stack([np.convolve(level, smooth, mode="same") for level in levels]) + 1e-5
    weights = (levels / levels.sum(axis=0)).astype(np.float32)
    # Weights change evenly from the edge of a frame to the next.
    edges = np.pad(weights, ((0, 0), (1, 1)), mode="edge")
    edges = (edges[:, :-1] + edges[:, 1:]) / 2
    first, last = edges[:, :-1, None], edges[:, 1:, None]
    mix = np.empty(channels.shape[1], dtype=np.float32)
    mix[:end] = ((first + (last - first) * _RAMP) * frames).sum(axis=0).reshape(-1)
    mix[end:] = edges[:, -1] @ channels[:, end:]
    return mix


def whole(channels: Samples, at: int) -> Window:
    """A window of everything, speech or not, that begins `at` samples into the recording."""
    n = channels.shape[1]
    return Window(mixed(channels), channels, (Piece(at, at + n, 0),), (Stretch(at, at + n),))
