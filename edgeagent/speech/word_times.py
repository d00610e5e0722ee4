"""Word times put right by where sound is: pure functions over words and the loudness of a window.

Whisper's alignment lets words beside a pause run into it, and leaves gaps where there is sound. Here a word
that reaches into a pause is kept to the side where it sounds; the first word after a pause begins, and the
last before one ends, with the sound; a word after a gap begins where its sound does; and times are in order.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

FRAME_S = 0.01
# A pause: at least so long, near the noise floor or so far below the loudest speech.
MIN_PAUSE_S = 0.12
ABOVE_FLOOR_DB, RANGE_DB = 6.0, 34.0
SILENCE_DB = -90.0
# Speech begins before and ends after what rises above the noise: breath, fading consonants.
ONSET_S, RELEASE_S = 0.08, 0.16
# How far a word beside a pause may be moved to where the sound begins or ends.
REACH_S = 0.45
MIN_WORD_S = 0.02

Span = tuple[float, float]


@dataclass(frozen=True)
class Timed:
    """A word of the model's on the window's clock, in seconds."""

    text: str
    start_s: float
    end_s: float
    confidence: float


@dataclass(frozen=True, eq=False)
class Sound:
    """Where a window sounds: bool [n_frames] of `FRAME_S` each, and the spans between pauses, in seconds."""

    is_loud: NDArray[np.bool_]
    spans: tuple[Span, ...]
    length_s: float

    def onset_s(self, start_s: float, earliest_s: float) -> float:
        """How early sound that lasts until `start_s` without a break began, `earliest_s` at the earliest."""
        frame, first = round(start_s / FRAME_S), round(earliest_s / FRAME_S)
        frame = min(frame, len(self.is_loud))
        while frame > first and self.is_loud[frame - 1]:
            frame -= 1
        return max(earliest_s, min(start_s, frame * FRAME_S))


def sound_of(samples: NDArray[np.float32], rate_hz: int) -> Sound:
    """Where `samples` (float32, mono) sound."""
    loudness = _loudness(samples, rate_hz)
    length_s = len(samples) / rate_hz
    if not len(loudness):
        return Sound(np.zeros(0, dtype=np.bool_), (), length_s)
    floor, top = float(np.percentile(loudness, 10)), float(np.percentile(loudness, 95))
    threshold = min(max(floor + ABOVE_FLOOR_DB, top - RANGE_DB), top - ABOVE_FLOOR_DB)
    is_loud = (loudness >= threshold) & (loudness > SILENCE_DB)
    return Sound(is_loud, tuple(_widened(_spans(is_loud), length_s)), length_s)


def _loudness(samples: NDArray[np.float32], rate_hz: int) -> NDArray[np.float64]:
    """Decibels of each frame, a little smoothed; digital silence is -100."""
    n = round(rate_hz * FRAME_S)
    frames = samples[: len(samples) // n * n].reshape(-1, n).astype(np.float64)
    if not len(frames):
        return np.zeros(0)
    power = np.mean(frames * frames, axis=1)
    return np.asarray(10 * np.log10(np.convolve(power, np.full(3, 1 / 3), mode="same") + 1e-10))


def _spans(is_loud: NDArray[np.bool_]) -> list[Span]:
    """Loud stretches, joined over what is too short for a pause."""
    edges = np.flatnonzero(np.diff(np.concatenate(([0], is_loud.view(np.int8), [0]))))
    joined: list[Span] = []
    for first, last in zip(edges[::2], edges[1::2], strict=True):
        start, end = float(first) * FRAME_S, float(last) * FRAME_S
        if joined and start - joined[-1][1] < MIN_PAUSE_S:
            joined[-1] = (joined[-1][0], end)
        else:
            joined.append((start, end))
    return [span for span in joined if span[1] - span[0] >= 0.03]


def _widened(spans: list[Span], length_s: float) -> list[Span]:
    """Spans with the quiet beginnings and ends of speech, at most to the middle of a pause."""
    found = []
    for i, (start, end) in enumerate(spans):
        before = (spans[i - 1][1] + start) / 2 if i else 0.0
        after = (end + spans[i + 1][0]) / 2 if i + 1 < len(spans) else length_s
        found.append((max(before, start - ONSET_S), min(after, end + RELEASE_S)))
    return found


def refined(words: Sequence[Timed], sound: Sound) -> list[Timed]:
    """The words, their times in order and kept to what sounds, within the window."""
    kept = [_kept_to_its_side(word, sound.spans) for word in words]
    kept = _filled(_snapped(kept, sound.spans), sound)
    return _in_order(kept, sound.length_s)


def _kept_to_its_side(word: Timed, spans: Sequence[Span]) -> Timed:
    """A word that reaches into a pause, cut to the span that holds most of it."""
    shares = [
        (min(word.end_s, end) - max(word.start_s, start), start, end)
        for start, end in spans
        if start < word.end_s and end > word.start_s
    ]
    if not shares:
        return word
    _, start, end = max(shares)
    return replace(word, start_s=max(word.start_s, start), end_s=min(word.end_s, end))


def _snapped(words: list[Timed], spans: Sequence[Span]) -> list[Timed]:
    """The first word of a span begins with it, the last ends with it, where they are near."""
    found = list(words)
    for start, end in spans:
        inside = [i for i, w in enumerate(found) if start <= (w.start_s + w.end_s) / 2 <= end]
        if not inside:
            continue
        first, last = inside[0], inside[-1]
        if abs(found[first].start_s - start) <= REACH_S:
            found[first] = replace(found[first], start_s=start)
        if abs(found[last].end_s - end) <= REACH_S:
            found[last] = replace(found[last], end_s=end)
    return found


def _filled(words: list[Timed], sound: Sound) -> list[Timed]:
    """A word after a gap begins where the sound that leads into it does."""
    found = words[:1]
    for word in words[1:]:
        before = found[-1].end_s
        if 0 < word.start_s - before <= REACH_S:
            word = replace(word, start_s=sound.onset_s(word.start_s, before))
        found.append(word)
    return found


def _in_order(words: list[Timed], end_s: float) -> list[Timed]:
    """Each word begins where the one before ended or later, and lasts for `MIN_WORD_S` where it can."""
    found: list[Timed] = []
    before = 0.0
    for word in words:
        start = min(max(word.start_s, before), end_s)
        end = min(max(word.end_s, start + MIN_WORD_S), end_s)
        found.append(replace(word, start_s=start, end_s=end))
        before = end
    return found
