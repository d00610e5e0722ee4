"""Audio files in, samples out: every container, and whatever pretends to be one."""

from __future__ import annotations

import io
import struct
import wave
from itertools import pairwise

import av
import numpy as np
import pytest

from edgeagent.errors import BodyTooLarge, InvalidParameter
from edgeagent.speech.audio import BLOCK_S, RATE_HZ, AudioBounds, blocks
from edgeagent.speech.containers import container_of, wav_seconds
from tests.speech.recordings import CONTAINERS, coded, dialogue, tone, wav_of


@pytest.mark.parametrize(("name", "muxer", "codec"), CONTAINERS, ids=[c[0] for c in CONTAINERS])
def test_a_recording_sounds_the_same_from_every_container(name, muxer, codec):
    original = dialogue()
    found = np.concatenate(list(blocks(coded(original, muxer, codec))), axis=1)
    assert found.dtype == np.float32
    assert len(found) == 2
    assert (
        abs(found.shape[1] - original.shape[1]) < 0.15 * RATE_HZ
    )  # what encoders put before and after
    loudness = [np.sqrt(np.mean(samples**2, axis=1)) for samples in (original, found)]
    assert np.allclose(*loudness, rtol=0.1)


@pytest.mark.parametrize("rate_hz", [8_000, 44_100, 48_000])
def test_other_rates_come_out_at_16_khz(rate_hz):
    data = coded(tone(1.5), "wav", "pcm_s16le", rate_hz)
    (found,) = blocks(data)
    assert abs(found.shape[1] - 1.5 * RATE_HZ) < 200


def test_a_long_recording_comes_in_blocks_of_bounded_length():
    found = list(blocks(coded(tone(35), "flac", "flac")))
    assert sum(block.shape[1] for block in found) == 35 * RATE_HZ
    assert all(BLOCK_S * RATE_HZ <= b.shape[1] < (BLOCK_S + 1) * RATE_HZ for b in found[:-1])


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"nothing of the kind",
        b"v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\nm=audio 5004 RTP/AVP 0\r\n",
        b"#EXTM3U\n#EXT-X-TARGETDURATION:10\nhttp://127.0.0.1:9/a.ts\n",
        b"ffconcat version 1.0\nfile '/etc/passwd'\n",
        b"<?xml version='1.0'?><MPD></MPD>",
        b"\x00\x00\x01\xba" + bytes(100),
    ],
)
def test_what_is_no_audio_file_is_refused_before_ffmpeg_sees_it(data, monkeypatch):
    monkeypatch.setattr(av, "open", lambda *args, **options: pytest.fail("FFmpeg was asked"))
    with pytest.raises(InvalidParameter, match="send one of flac") as refused:
        list(blocks(data))
    assert refused.value.param == "file"


def test_a_playlist_in_audio_clothes_opens_nothing():
    data = b"OggS" + b"\n#EXTM3U\nfile:///etc/passwd\n"
    with pytest.raises(InvalidParameter, match=r"cannot be decoded|no audio"):
        list(blocks(data))


def test_video_is_refused():
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="matroska") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width = stream.height = 32
        stream.pix_fmt = "yuv420p"
        for _ in range(3):
            container.mux(stream.encode(av.VideoFrame(32, 32, "yuv420p")))
        container.mux(stream.encode(None))
    with pytest.raises(InvalidParameter, match="video"):
        list(blocks(buffer.getvalue()))


def test_eight_channels_are_refused():
    with pytest.raises(InvalidParameter, match="8 channels"):
        list(blocks(wav_of(tone(0.5, 8))))


@pytest.mark.parametrize("rate_hz", [1, 4_000_000_000])
def test_a_forged_rate_is_refused(rate_hz):
    data = bytearray(wav_of(tone(0.5)))
    data[24:28] = struct.pack("<I", rate_hz)
    with pytest.raises(InvalidParameter):
        list(blocks(bytes(data)))


@pytest.mark.parametrize(("name", "muxer", "codec"), CONTAINERS[:2], ids=["wav", "flac"])
def test_a_cut_file_is_refused_rather_than_heard_in_part(name, muxer, codec):
    data = coded(tone(8), muxer, codec)
    with pytest.raises(InvalidParameter, match=r"cut|cannot be decoded"):
        list(blocks(data[: len(data) // 2]))


def test_a_wav_file_written_as_a_stream_needs_no_length():
    data = bytearray(wav_of(tone(2)))
    at = data.index(b"data") + 4
    data[at : at + 4] = b"\xff\xff\xff\xff"
    assert wav_seconds(bytes(data)) is None
    assert sum(block.shape[1] for block in blocks(bytes(data))) == 2 * RATE_HZ


def test_hours_of_silence_in_a_small_file_are_stopped_while_decoding():
    data = coded(np.zeros((1, 60 * RATE_HZ), dtype=np.float32), "flac", "flac")
    assert len(data) < 60_000
    with pytest.raises(BodyTooLarge, match="at most 20 s"):
        list(blocks(data, AudioBounds(max_seconds=20)))


def test_too_many_bytes_are_refused():
    with pytest.raises(BodyTooLarge, match="at most 1000 are taken"):
        list(blocks(wav_of(tone(1)), AudioBounds(max_bytes=1000)))


def test_samples_that_are_no_numbers_become_silence():
    samples = tone(0.2)
    samples[0, 10:20] = np.nan
    samples[0, 30:40] = np.inf
    data = coded(samples, "wav", "pcm_f32le")
    (found,) = blocks(data)
    assert np.isfinite(found).all()
    assert np.abs(found).max() <= 1


def test_damaged_files_are_errors_of_ours_or_sound():
    """Every tenth byte of a small file changed, one file each."""
    rng = np.random.default_rng(1)
    for _, muxer, codec in CONTAINERS:
        good = coded(tone(0.3, 2), muxer, codec)
        for _ in range(12):
            data = bytearray(good)
            for at in rng.integers(0, len(data), size=max(1, len(data) // 200)):
                data[at] = int(rng.integers(256))
            try:
                n = sum(
                    block.shape[1] for block in blocks(bytes(data), AudioBounds(max_seconds=60))
                )
            except (InvalidParameter, BodyTooLarge):
                continue
            assert 0 < n <= 60 * RATE_HZ


def test_containers_are_known_by_their_first_bytes():
    with io.BytesIO() as buffer:
        with wave.open(buffer, "wb") as file:
            file.setparams((1, 2, 16000, 0, "NONE", ""))
            file.writeframes(bytes(32))
        assert container_of(buffer.getvalue()) == "wav"
    assert container_of(b"\xff\xfb\x90\x64" + bytes(8)) == "mp3"
    assert container_of(b"\x00\x00\x00\x20ftypM4A " + bytes(4)) == "mp4"
    for head in (b"\xff\xff\xff\xff", b"\xff\xe0\x00\x00", b"RIFF\x00\x00\x00\x00AVI "):
        with pytest.raises(InvalidParameter):
            container_of(head + bytes(12))


def test_blocks_join_without_a_seam():
    samples = tone(25)
    found = list(blocks(coded(samples, "flac", "flac")))
    joined = np.concatenate(found, axis=1)
    assert np.abs(joined - samples).max() < 1e-3
    assert all(len(a) == len(b) for a, b in pairwise(found))
