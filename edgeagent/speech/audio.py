"""Audio files to samples: from memory or from the daemon, a block at a time, under bounds.

The container is forced (`containers.container_of`), no other file or address can be opened from inside it,
and only the codecs of the list have a decoder. Worker side: FFmpeg sees untrusted bytes here, nowhere else.
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

from edgeagent.errors import BodyTooLarge, InvalidParameter
from edgeagent.speech.containers import (
    CODECS,
    DEMUXERS,
    check_stream,
    container_of,
    refused,
    wav_seconds,
)
from edgeagent.speech.remote_recording import RemoteRecording

RATE_HZ = 16_000
BLOCK_S = 10.0
# Samples that are converted at once: decoders give 10 to 60 ms, and a call for each costs more than decoding.
CONVERTED_AT_ONCE = RATE_HZ
# What a header may promise more than there is before a file counts as cut: padding, estimates of bit rates.
CUT_SLACK_S, CUT_SLACK_PART = 1.0, 0.02
# Containers whose header says how long the recording is; the others' durations are guesses of FFmpeg's.
_TELLS_LENGTH = {"flac", "mp4", "matroska"}

Samples = NDArray[np.float32]
Source = bytes | RemoteRecording
# So much of a recording is looked at for its container and for the length that a WAV file promises.
HEAD_BYTES = 64 << 10

av.logging.set_level(None)


@dataclass(frozen=True)
class AudioBounds:
    """How much of one file is decoded at most."""

    max_bytes: int = 200 << 20
    max_seconds: float = 4 * 3600.0


def blocks(data: Source, bounds: AudioBounds | None = None) -> Iterator[Samples]:
    """Decode a file: float32 [n_channels, n_samples], 16 kHz, -1..1, at most `BLOCK_S` seconds each.

    Raises: InvalidParameter for what is no audio, damaged or cut; BodyTooLarge beyond the bounds.
    """
    bounds = bounds or AudioBounds()
    if len(data) > bounds.max_bytes:
        raise BodyTooLarge(
            f"The file has {len(data)} bytes, at most {bounds.max_bytes} are taken: compress or split it.",
            param="file",
        )
    n_max = round(bounds.max_seconds * RATE_HZ)
    n_samples = 0
    head = data if isinstance(data, bytes) else data.head(HEAD_BYTES)
    name = container_of(head)
    with _foreign_errors(), _opened(data, name) as container:
        stream = _audio_stream(container)
        promised_s = _promised_s(container, stream) if name in _TELLS_LENGTH else wav_seconds(head)
        if promised_s is not None and promised_s > bounds.max_seconds + CUT_SLACK_S:
            raise _too_long(promised_s, bounds)
        gathered, n_gathered = [], 0
        for samples in _resampled(container, stream):
            n_samples += samples.shape[1]
            if n_samples > n_max:
                raise _too_long(n_samples / RATE_HZ, bounds)
            gathered.append(samples)
            n_gathered += samples.shape[1]
            if n_gathered >= BLOCK_S * RATE_HZ:
                yield np.concatenate(gathered, axis=1)
                gathered, n_gathered = [], 0
        if gathered:
            yield np.concatenate(gathered, axis=1)
    if not n_samples:
        raise refused("has no audio in it")
    _check_whole(n_samples / RATE_HZ, promised_s)


def _check_whole(found_s: float, promised_s: float | None) -> None:
    """Raises: InvalidParameter for a file that ends before its header says: words would be lost silently."""
    if promised_s is None or promised_s <= found_s * (1 + CUT_SLACK_PART) + CUT_SLACK_S:
        return
    raise InvalidParameter(
        f"The file is cut: it ends after {found_s:.1f} s, its header promises {promised_s:.1f} s. Send the "
        "whole file, or convert what is there to a new one.",
        param="file",
    )


def _too_long(seconds: float, bounds: AudioBounds) -> BodyTooLarge:
    return BodyTooLarge(
        f"The file has {seconds:.0f} s of audio or more, at most {bounds.max_seconds:.0f} s are taken: "
        "split it.",
        param="file",
    )


@contextmanager
def _opened(data: Source, name: str) -> Iterator[Any]:
    """The container, read by the demuxer `name` and no other."""
    container = av.open(
        io.BytesIO(data) if isinstance(data, bytes) else data,
        mode="r",
        format=name,
        io_open=_open_nothing,
        metadata_errors="replace",
        options={
            "codec_whitelist": ",".join(sorted(CODECS)),
            "format_whitelist": ",".join(DEMUXERS),
            "protocol_whitelist": "",
            "probesize": str(1 << 20),
            "max_streams": "8",
        },
    )
    try:
        yield container
    finally:
        container.close()


def _open_nothing(url: str, flags: int, options: dict[str, Any]) -> Any:
    raise PermissionError("an audio file may not name another one")


def _audio_stream(container: Any) -> Any:
    for stream in container.streams:
        is_picture = stream.type == "video" and "attached_pic" in str(stream.disposition).lower()
        if stream.type == "video" and not is_picture:
            raise refused("has video in it")
    if not container.streams.audio:
        raise refused("has no audio in it")
    stream = container.streams.audio[0]
    codec = stream.codec_context  # None where no decoder of the list reads it
    if codec is None:
        raise refused("is coded with what is not taken")
    check_stream(codec.name, codec.channels or 0, codec.sample_rate or 0)
    return stream


def _promised_s(container: Any, stream: Any) -> float | None:
    """The duration by the header; None where it has none."""
    if stream.duration and stream.time_base:
        seconds = float(stream.duration * stream.time_base)
    elif container.duration:
        seconds = container.duration / av.time_base
    else:
        return None
    return seconds if math.isfinite(seconds) and seconds > 0 else None


def _resampled(container: Any, stream: Any) -> Iterator[Samples]:
    resampler = av.AudioResampler(format="fltp", rate=RATE_HZ, frame_size=CONVERTED_AT_ONCE)
    n_channels = stream.channels
    for frame in container.decode(stream):
        if frame.layout.nb_channels != n_channels:
            raise refused("changes its number of channels")
        for part in resampler.resample(frame):
            yield _sound(part)
    for part in resampler.resample(None):
        yield _sound(part)


def _sound(frame: Any) -> Samples:
    """Samples that can be computed with: floating-point files may hold infinities and nonsense."""
    samples = frame.to_ndarray()
    found: Samples = np.clip(np.nan_to_num(samples, nan=0.0, posinf=1.0, neginf=-1.0), -1.0, 1.0)
    return found


@contextmanager
def _foreign_errors() -> Iterator[None]:
    try:
        yield
    except (av.FFmpegError, ValueError, OSError, OverflowError, IndexError, MemoryError) as exc:
        raise refused(f"cannot be decoded ({type(exc).__name__})") from exc
