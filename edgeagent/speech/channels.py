"""Speakers by channel: whether the channels of a recording differ, and which one each word comes from.

The channels are heard as one mix, so that each speaker's words have the other's for context, and each word
is given to the channel that is louder while it is said. Where two speak at once, the channels are heard one
by one, and the words of all are put in order by their own times.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from edgeagent.speech.segments import Segment, Word
from edgeagent.speech.vad import RATE_HZ
from edgeagent.speech.windows import Samples, Window
from edgeagent.speech.word_times import sound_of

FRAME = RATE_HZ // 50
# A channel is dominant where it is so much louder than all others.
DOMINANT_DB = 6.0
# Channels differ when two of them are dominant in at least this share of what sounds.
MIN_SHARE = 0.04
# A word that is louder by less than this keeps the speaker of the word before.
UNSURE_DB = 3.0
# Two voices at once: so long in all, levels no further apart, and not the same sound on both channels.
OVERLAP_S, OVERLAP_DB, BLEED = 0.6, 12.0, 0.3


class ChannelSurvey:
    """Looks at a recording block by block and then says whether its channels have speakers of their own."""

    def __init__(self) -> None:
        self._levels: list[NDArray[np.float32]] = []

    def feed(self, block: Samples) -> None:
        self._levels.append(_levels(block))

    @property
    def do_differ(self) -> bool:
        if not self._levels or len(self._levels[0]) < 2:
            return False
        levels = np.concatenate(self._levels, axis=1)
        if not levels.shape[1]:
            return False
        loudest = levels.max(axis=0)
        is_loud = loudest >= max(float(np.percentile(loudest, 95)) - 30.0, -70.0)
        return bool(np.count_nonzero(_dominance(levels[:, is_loud]) >= MIN_SHARE) >= 2)


def _levels(block: Samples) -> NDArray[np.float32]:
    """Decibels by 20 ms: float32 [n_channels, n_frames]."""
    n = block.shape[1] // FRAME
    frames = block[:, : n * FRAME].reshape(len(block), n, FRAME)
    levels: NDArray[np.float32] = 10 * np.log10(np.mean(frames * frames, axis=2) + 1e-10)
    return levels.astype(np.float32)


def _dominance(levels: NDArray[np.float32]) -> NDArray[np.float64]:
    """For each channel the share of frames in which it is louder than all others by `DOMINANT_DB`."""
    if not levels.shape[1]:
        return np.zeros(len(levels))
    ordered = np.sort(levels, axis=0)
    is_clear = ordered[-1] - ordered[-2] >= DOMINANT_DB
    counts = np.bincount(levels.argmax(axis=0)[is_clear], minlength=len(levels))
    return np.asarray(counts / levels.shape[1])


def do_overlap(window: Window) -> bool:
    """Whether two channels of a window have different voices at once for a noticeable time."""
    if len(window.channels) < 2:
        return False
    levels = np.sort(_levels(window.channels), axis=0)[-2:]
    masks = [sound_of(channel, RATE_HZ).is_loud for channel in _two_loudest(window.channels)]
    n = min(levels.shape[1], *(len(mask) // 2 for mask in masks))
    loud = [mask[: 2 * n].reshape(n, 2).all(axis=1) for mask in masks]
    both = loud[0] & loud[1] & (levels[1, :n] - levels[0, :n] <= OVERLAP_DB)
    if np.count_nonzero(both) * FRAME < OVERLAP_S * RATE_HZ:
        return False
    return _likeness(window.channels, both) < BLEED


def _two_loudest(channels: Samples) -> Samples:
    order = np.argsort((channels * channels).mean(axis=1))
    return channels[order[-2:]]


def _likeness(channels: Samples, frames: NDArray[np.bool_]) -> float:
    """How much of one channel is the other's sound, 0 to 1, at whatever delay within 20 ms."""
    one, other = (
        c[: len(frames) * FRAME].reshape(-1, FRAME)[frames].ravel() for c in _two_loudest(channels)
    )
    n = 1 << (2 * len(one)).bit_length()
    spectrum = np.fft.rfft(one, n) * np.conj(np.fft.rfft(other, n))
    correlation = np.abs(np.fft.irfft(spectrum, n))
    near = np.concatenate((correlation[: FRAME + 1], correlation[-FRAME:]))
    return float(near.max() / (np.linalg.norm(one) * np.linalg.norm(other) + 1e-9))


def attributed(
    segments: Sequence[Segment], window: Window, names: Sequence[str]
) -> Iterator[Segment]:
    """The segments of a window, each word with its speaker, cut where the speaker changes."""
    before: int | None = None
    for segment in segments:
        channels = []
        for word in segment.words:
            before = _channel_of(word, window, before)
            channels.append(before)
        yield from _cut(segment, channels, names)


def _channel_of(word: Word, window: Window, before: int | None) -> int:
    """The channel that is loudest while a word is said."""
    start, end = (window.sample_at(second) for second in (word.start_s, word.end_s))
    part = window.channels[:, start : max(end, start + FRAME)]
    if not part.shape[1]:
        return before or 0
    levels = 10 * np.log10((part * part).mean(axis=1) + 1e-10)
    loudest = int(levels.argmax())
    if before is not None and levels[loudest] - levels[before] < UNSURE_DB:
        return before
    return loudest


def _cut(segment: Segment, channels: Sequence[int], names: Sequence[str]) -> Iterator[Segment]:
    start = 0
    for i in range(1, len(channels) + 1):
        if i == len(channels) or channels[i] != channels[start]:
            yield of_channel(segment, segment.words[start:i], channels[start], names)
            start = i


def of_channel(
    segment: Segment, words: Sequence[Word], channel: int, names: Sequence[str]
) -> Segment:
    """A part of a segment that one speaker said."""
    name = speaker_name(channel, names)
    words = tuple(msgspec.structs.replace(word, speaker=name) for word in words)
    return msgspec.structs.replace(
        segment,
        start_s=words[0].start_s,
        end_s=words[-1].end_s,
        text="".join(word.text for word in words),
        words=words,
        tokens=segment.tokens if len(words) == len(segment.words) else (),
        speaker=name,
        channel=channel,
    )


def speaker_name(channel: int, names: Sequence[str]) -> str:
    """The given name of a channel's speaker, else A, B, ..."""
    return names[channel] if channel < len(names) else chr(ord("A") + channel)


def interleaved(heard: Sequence[Sequence[Segment]], names: Sequence[str]) -> Iterator[Segment]:
    """The segments of each channel as turns in one order, by the times of the words themselves."""
    words = sorted(
        (
            (word.start_s, channel, position, word, segment)
            for channel, segments in enumerate(heard)
            for segment in segments
            for position, word in enumerate(segment.words)
        ),
        key=lambda found: found[:3],
    )
    start = 0
    for i in range(1, len(words) + 1):
        if i == len(words) or words[i][1] != words[start][1] or words[i][4] is not words[start][4]:
            channel, segment = words[start][1], words[start][4]
            yield of_channel(segment, [found[3] for found in words[start:i]], channel, names)
            start = i
