"""Samples of one live stream, as they arrive, to samples for the model. Worker side."""

from __future__ import annotations

import av
import numpy as np
from numpy.typing import NDArray

from edgeagent.speech.live_options import LiveFormat
from edgeagent.speech.vad import RATE_HZ

Samples = NDArray[np.float32]


class PcmDecoder:
    """Bytes in, float32 of 16 kHz, mono, -1..1 out. Half a sample waits for its rest. One thread."""

    def __init__(self, form: LiveFormat, rate_hz: int) -> None:
        self._form = form
        self._rate_hz = rate_hz
        self._rest = b""
        self._resampler: av.AudioResampler | None = None
        if rate_hz != RATE_HZ:
            self._resampler = av.AudioResampler(format="s16", layout="mono", rate=RATE_HZ)

    def feed(self, data: bytes) -> Samples:
        """The samples that are complete by now; a resampler holds a few back."""
        samples = self._integers(data)
        if self._resampler is not None and len(samples):
            frame = av.AudioFrame.from_ndarray(samples[None], format="s16", layout="mono")
            frame.rate = self._rate_hz
            parts = [part.to_ndarray()[0] for part in self._resampler.resample(frame)]
            samples = np.concatenate(parts) if parts else np.zeros(0, dtype=np.int16)
        return samples.astype(np.float32) / np.float32(32768)

    def _integers(self, data: bytes) -> NDArray[np.int16]:
        if self._form != "pcm16":
            return _TABLES[self._form][np.frombuffer(data, dtype=np.uint8)]
        data = self._rest + data
        whole = len(data) // 2 * 2
        self._rest = data[whole:]
        return np.frombuffer(data[:whole], dtype="<i2").astype(np.int16)


def _mu_law() -> NDArray[np.int16]:
    """ITU-T G.711, mu-law: a value for each byte."""
    codes = ~np.arange(256, dtype=np.uint8)
    exponents, mantissas = (codes >> 4) & 7, codes & 15
    values = (((mantissas.astype(np.int32) << 3) + 132) << exponents) - 132
    return np.where(codes & 0x80, -values, values).astype(np.int16)


def _a_law() -> NDArray[np.int16]:
    """ITU-T G.711, A-law: a value for each byte."""
    codes = np.arange(256, dtype=np.uint8) ^ 0x55
    exponents, mantissas = ((codes >> 4) & 7).astype(np.int32), (codes & 15).astype(np.int32)
    low = (mantissas << 4) + 8
    values = np.where(exponents == 0, low, (low + 256) << np.maximum(exponents - 1, 0))
    return np.where(codes & 0x80, values, -values).astype(np.int16)


_TABLES = {"pcmu": _mu_law(), "pcma": _a_law()}
