"""A recording to segments, window by window. Worker side, one thread.

The recording is decoded as a whole first, so that a file that is damaged, cut or too long is refused before
a word of it is given out. What was decoded of a short one is kept for the hearing; a longer one is decoded
again, window after window, of which one is in memory at a time.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import msgspec

from edgeagent.errors import InvalidParameter
from edgeagent.speech import channels
from edgeagent.speech.audio import RATE_HZ, AudioBounds, Samples, Source, blocks
from edgeagent.speech.options import SpeechOptions
from edgeagent.speech.segments import Checkpoint, Segment, without_stubs
from edgeagent.speech.vad import VadOptions
from edgeagent.speech.whisper import Session, Whisper
from edgeagent.speech.windows import Window, WindowMaker, whole

# Samples of all channels that are kept of a recording: a minute of two channels, 8 MB.
MAX_KEPT_SAMPLES = 2 * 65 * RATE_HZ


@dataclass(frozen=True)
class Survey:
    """What is known of a recording before it is heard. `kept` are its blocks where it is short."""

    duration_s: float
    n_channels: int
    do_channels_differ: bool
    kept: tuple[Samples, ...] | None = field(default=None, compare=False, repr=False)


def surveying(data: Source, bounds: AudioBounds | None = None) -> Iterator[Survey | None]:
    """Decode everything once: None for each block, then the survey.

    Raises: InvalidParameter, BodyTooLarge.
    """
    looked = channels.ChannelSurvey()
    n_samples = n_channels = 0
    kept: list[Samples] | None = []
    for block in blocks(data, bounds):
        n_channels = len(block)
        n_samples += block.shape[1]
        looked.feed(block)
        if n_samples * n_channels > MAX_KEPT_SAMPLES:
            kept = None
        if kept is not None:
            kept.append(block)
        yield None
    held = tuple(kept) if kept is not None else None
    yield Survey(n_samples / RATE_HZ, n_channels, looked.do_differ, held)


def survey(data: Source, bounds: AudioBounds | None = None) -> Survey:
    """The survey, in one go. Raises: InvalidParameter, BodyTooLarge."""
    *_, found = surveying(data, bounds)
    assert found is not None
    return found


def vad_options(given: dict[str, object]) -> VadOptions:
    """The options from their names. Raises: InvalidParameter for a name or a value that is wrong."""
    known = VadOptions.__dataclass_fields__
    if unknown := sorted(given.keys() - known.keys()):
        raise InvalidParameter(
            f"Voice detection has no option {unknown[0][:40]!r}: it has {', '.join(known)}.",
            param="vad",
        )
    try:
        return msgspec.convert(given, VadOptions)
    except msgspec.ValidationError as exc:
        raise InvalidParameter(f"Voice detection: {exc}.", param="vad") from exc


@dataclass(frozen=True)
class Heard:
    """What one window gave, and up to which second of the recording everything is heard. `context`: tokens
    of the text before the next window."""

    segments: tuple[Segment, ...]
    until_s: float
    language: str
    context: tuple[int, ...] = ()


class Transcriber:
    """One model's transcriptions, one at a time."""

    def __init__(self, whisper: Whisper) -> None:
        self.whisper = whisper

    def transcribe(
        self,
        data: Source,
        options: SpeechOptions,
        known: Survey,
        bounds: AudioBounds | None = None,
        done: Checkpoint | None = None,
    ) -> Iterator[Heard | None]:
        """The segments of each window as they come; None where a block was looked at and gave no window.

        Windows up to a checkpoint are found again, so that the later ones are the same as without a break,
        and are not heard again. Raises: InvalidParameter, BodyTooLarge.
        """
        by_channel = options.speakers == "channel" and known.do_channels_differ
        if by_channel or options.has_logprobs:
            options = msgspec.structs.replace(options, has_words=True)
        session = self.whisper.session(options)
        if done is not None:
            session.resume(done.language, done.context)
        until_s = done.until_s if done is not None else 0.0
        decoded = blocks(data, bounds) if known.kept is None else iter(known.kept)
        for window in _windows(decoded, options):
            if window is None or window.end_s <= until_s:
                yield None
                continue
            segments = list(_of_window(session, window, options, by_channel))
            if options.has_logprobs:
                segments = session.scored(segments, window.samples)
            language = session.language or ""
            yield Heard(tuple(segments), window.end_s, language, session.context)


def _windows(found: Iterator[Samples], options: SpeechOptions) -> Iterator[Window | None]:
    if options.vad is None:
        yield from _everything(found)
        return
    maker = WindowMaker(vad_options(options.vad))
    held: Samples | None = None
    for block in found:
        if held is not None:
            yield from maker.feed(held)
            yield None
        held = block
    if held is not None:
        yield from maker.feed(held, is_last=True)


def _everything(found: Iterator[Samples]) -> Iterator[Window]:
    at = 0
    for block in found:
        yield whole(block, at)
        at += block.shape[1]


def _of_window(
    session: Session, window: Window, options: SpeechOptions, by_channel: bool
) -> Iterator[Segment]:
    names = options.speaker_names
    if not by_channel:
        yield from without_stubs(session.hear(window))
    elif channels.do_overlap(window):
        heard = [list(session.hear(window, channel)) for channel in window.channels]
        yield from channels.interleaved(heard, names)
    else:
        told = channels.attributed(list(session.hear(window)), window, names)
        yield from without_stubs(told)
