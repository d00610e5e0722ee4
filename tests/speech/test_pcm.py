"""Live samples of every format, whatever the pieces they come in."""

from __future__ import annotations

import av
import numpy as np
import pytest

from edgeagent.speech.pcm import PcmDecoder
from tests.speech.recordings import tone


def pcm(rate_hz: int) -> bytes:
    """Half a second of a tone."""
    t = np.arange(rate_hz // 2) / rate_hz
    return (np.sin(2 * np.pi * 300 * t) * 3000).astype("<i2").tobytes()


def test_16_khz_is_taken_as_it_is():
    samples = tone(0.5)[0]
    data = (samples * 32767).astype("<i2").tobytes()
    assert np.abs(PcmDecoder("pcm16", 16_000).feed(data) - samples).max() < 1e-4


@pytest.mark.parametrize("rate_hz", [8_000, 24_000, 44_100, 48_000])
def test_other_rates_are_resampled(rate_hz):
    found = PcmDecoder("pcm16", rate_hz).feed(pcm(rate_hz))
    assert 7_900 <= len(found) <= 8_000
    middle = found[1000:-1000]
    spectrum = np.abs(np.fft.rfft(middle * np.hanning(len(middle))))
    assert abs(spectrum.argmax() * 16_000 / len(middle) - 300) < 5


@pytest.mark.parametrize("size", [1, 7, 960])
def test_pieces_of_odd_lengths_make_no_difference(size):
    data = pcm(24_000)[:4800]
    whole, pieces = PcmDecoder("pcm16", 24_000), PcmDecoder("pcm16", 24_000)
    parts = [pieces.feed(data[at : at + size]) for at in range(0, len(data), size)]
    expected = whole.feed(data)
    found = np.concatenate(parts)[: len(expected)]
    assert np.abs(found - expected[: len(found)]).max() < 1e-3


@pytest.mark.parametrize(("form", "codec"), [("pcmu", "pcm_mulaw"), ("pcma", "pcm_alaw")])
def test_g711_is_what_ffmpeg_makes_of_it(form, codec):
    every_byte = bytes(range(256))
    decoder = av.CodecContext.create(codec, "r")
    decoder.layout, decoder.sample_rate = "mono", 8_000
    (frame,) = decoder.decode(av.Packet(every_byte))
    found = PcmDecoder(form, 16_000).feed(every_byte)  # a rate that is not resampled
    assert np.array_equal(found * 32768, frame.to_ndarray()[0].astype(np.float32))


def test_nothing_makes_nothing():
    assert len(PcmDecoder("pcm16", 24_000).feed(b"")) == 0
    assert len(PcmDecoder("pcm16", 24_000).feed(b"\0")) == 0
