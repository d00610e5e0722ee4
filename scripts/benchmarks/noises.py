"""Sounds that nobody speaks in, for tests of what a speech model makes of them: float32, 16 kHz, -1..1."""

from __future__ import annotations

import io
import wave
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

RATE_HZ = 16_000
Samples = NDArray[np.float32]
# Loudness of the three levels, in dB below full scale.
LEVELS_DB = (-50.0, -30.0, -12.0)


def silence(n: int, rng: np.random.Generator) -> Samples:
    return np.zeros(n, dtype=np.float32)


def white(n: int, rng: np.random.Generator) -> Samples:
    return rng.standard_normal(n).astype(np.float32)


def pink(n: int, rng: np.random.Generator) -> Samples:
    spectrum = np.fft.rfft(rng.standard_normal(n))
    spectrum /= np.sqrt(np.maximum(np.arange(len(spectrum)), 1))
    return np.fft.irfft(spectrum, n).astype(np.float32)


def hum(n: int, rng: np.random.Generator) -> Samples:
    """Mains: 50 Hz and what comes with it."""
    t = np.arange(n) / RATE_HZ
    parts = [np.sin(2 * np.pi * 50 * k * t + rng.uniform(0, 6)) / k for k in range(1, 12)]
    return np.sum(parts, axis=0).astype(np.float32)


def tones(n: int, rng: np.random.Generator) -> Samples:
    """Beeps of a monitor: half a second each, at a few pitches."""
    t = np.arange(n) / RATE_HZ
    pitch = np.array([440.0, 880.0, 1320.0, 660.0])[(t // 1).astype(int) % 4]
    return (np.sin(2 * np.pi * pitch * t) * (t % 1 < 0.5)).astype(np.float32)


def chords(n: int, rng: np.random.Generator) -> Samples:
    """Chords with decay and overtones, as a piano far away has them."""
    t = np.arange(n) / RATE_HZ
    roots = 220 * 2 ** (np.array([0, 5, 7, 9])[(t // 2).astype(int) % 4] / 12)
    sound = np.zeros(n)
    for step in (0, 4, 7):
        for overtone in (1, 2, 3):
            sound += np.sin(2 * np.pi * roots * 2 ** (step / 12) * overtone * t) / overtone
    return (sound * np.exp(-1.5 * (t % 2))).astype(np.float32)


def breathing(n: int, rng: np.random.Generator) -> Samples:
    """Noise that swells and ebbs, in and out every four seconds."""
    t = np.arange(n) / RATE_HZ
    swell = np.clip(np.sin(2 * np.pi * t / 2), 0, 1) ** 2
    return pink(n, rng) * swell.astype(np.float32)


def typing(n: int, rng: np.random.Generator) -> Samples:
    """Clicks of a keyboard, six a second."""
    sound = np.zeros(n, dtype=np.float32)
    click = rng.standard_normal(480) * np.exp(-np.arange(480) / 60)
    for at in np.sort(rng.integers(0, max(1, n - 480), size=6 * n // RATE_HZ)):
        sound[at : at + 480] += (click * rng.uniform(0.3, 1.0)).astype(np.float32)
    return sound


NOISES: dict[str, Callable[[int, np.random.Generator], Samples]] = {
    f.__name__: f for f in (silence, white, pink, hum, tones, chords, breathing, typing)
}


def noise(name: str, seconds: float, level_db: float, seed: int = 0) -> Samples:
    """A noise at a level (root mean square), clipped to full scale."""
    made = NOISES[name](round(seconds * RATE_HZ), np.random.default_rng(seed))
    rms = float(np.sqrt(np.mean(made.astype(np.float64) ** 2)))
    gain = 10 ** (level_db / 20) / rms if rms else 0.0
    return np.clip(made * gain, -1, 1).astype(np.float32)


def wav(channels: Samples, rate_hz: int = RATE_HZ) -> bytes:
    """A WAV file of 16 bits; float32 [n_samples] or [n_channels, n_samples]."""
    rows = np.atleast_2d(channels)
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(len(rows))
        file.setsampwidth(2)
        file.setframerate(rate_hz)
        file.writeframes((np.clip(rows.T, -1, 1) * 32767).astype("<i2").tobytes())
    return buffer.getvalue()
