"""Recordings of the tests: our own dialogue, and the same samples in every container."""

from __future__ import annotations

import io
import itertools
import json
from functools import cache
from typing import Any

import av
import numpy as np

from edgeagent.speech.audio import RATE_HZ, Samples, blocks
from scripts.benchmarks.noises import wav
from tests.conftest import ROOT

DIALOGUE = ROOT / "tests" / "data" / "dialogue.ogg"
TURNS: list[dict[str, Any]] = json.loads(DIALOGUE.with_suffix(".json").read_text())
# Name, FFmpeg's muxer, codec.
CONTAINERS = (
    ("wav", "wav", "pcm_s16le"),
    ("flac", "flac", "flac"),
    ("mp3", "mp3", "libmp3lame"),
    ("ogg", "ogg", "libopus"),
    ("webm", "webm", "libopus"),
    ("m4a", "ipod", "aac"),
)


@cache
def dialogue() -> Samples:
    """float32 [2, n_samples] of 16 kHz."""
    return np.concatenate(list(blocks(DIALOGUE.read_bytes())), axis=1)


def long_dialogue(n_times: int) -> Samples:
    """The dialogue so often, one channel, with pauses between its turns: float32 [1, n_samples].

    With the pauses a window has no text three times over, which would be sampled at random.
    """
    turns = [round(turn["start_s"] * RATE_HZ) for turn in TURNS]
    pause = np.zeros((1, round(1.6 * RATE_HZ)), dtype=np.float32)
    mono = dialogue().mean(axis=0)[None]
    cuts = [0, *turns[1:], mono.shape[1]]
    parts = [mono[:, a:b] for a, b in itertools.pairwise(cuts)]
    return np.tile(np.concatenate([p for part in parts for p in (part, pause)], axis=1), n_times)


def coded(samples: Samples, muxer: str, codec: str, rate_hz: int = RATE_HZ) -> bytes:
    """A file in memory with these samples."""
    buffer = io.BytesIO()
    layout = {1: "mono", 2: "stereo"}[len(samples)]
    with av.open(buffer, "w", format=muxer) as container:
        stream: Any = container.add_stream(codec, rate=rate_hz, layout=layout)
        planar = np.ascontiguousarray(samples)
        frame = av.AudioFrame.from_ndarray(planar, format="fltp", layout=layout)
        frame.rate = RATE_HZ
        resampler = av.AudioResampler(
            stream.format, layout, rate_hz, frame_size=stream.frame_size or None
        )
        for part in [*resampler.resample(frame), *resampler.resample(None)]:
            container.mux(stream.encode(part))
        container.mux(stream.encode(None))
    return buffer.getvalue()


def tone(seconds: float, n_channels: int = 1) -> Samples:
    """A quiet sine."""
    t = np.arange(round(seconds * RATE_HZ)) / RATE_HZ
    return np.tile(np.sin(2 * np.pi * 300 * t).astype(np.float32) * 0.1, (n_channels, 1))


def wav_of(samples: Samples) -> bytes:
    return wav(samples)


@cache
def greeting() -> bytes:
    """The first sentence of the dialogue, one channel: heard in half the time of all four."""
    end_s = (TURNS[0]["end_s"] + TURNS[1]["start_s"]) / 2
    return wav_of(dialogue().mean(axis=0)[: round(end_s * RATE_HZ)])


def is_greeting(text: str) -> bool:
    """Whether this is the sentence of `greeting`, but for one word."""
    said = set(words_of(TURNS[0]["text"]))
    return len(said & set(words_of(text))) >= len(said) - 1


def words_of(text: str) -> list[str]:
    """Lower case, no punctuation."""
    plain = "".join(c if c.isalnum() or c == "'" else " " for c in text.lower())
    return plain.split()
