"""Damaged and hostile recordings for `audio.py`: the same for the same seed, without end.

damaged   bytes changed, parts cut out, doubled or swapped, in every container; also in the recordings
          of a folder, where one is given
lies      forged rates, lengths and channels; tags without audio; files cut at every eighth
bombs     ten minutes of silence in a small file, tables and sizes that promise gigabytes
others    video, pictures, archives, playlists, session descriptions, concatenations; these also behind
          the first bytes of a recording
"""

from __future__ import annotations

import io
import random
import struct
import zipfile
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from scripts.benchmarks.noises import wav
from tests.speech.recordings import CONTAINERS, coded, tone

# One of so many damaged files is one of the folder's: they are larger, and take longer to decode.
FOLDER_EVERY = 5
HEADS = (
    b"",
    b"RIFF\x24\x00\x00\x00WAVE",
    b"fLaC",
    b"OggS\x00\x02",
    b"ID3\x04\x00",
    b"\x1a\x45\xdf\xa3",
    b"\0\0\0\x20ftypM4A ",
)


def files(
    n: int, seed: int, *, canary: str = "127.0.0.1:9", folder: Sequence[Path] = ()
) -> Iterator[tuple[str, bytes]]:
    """`n` files, each with its kind; at least half are damaged.

    What names an address names `canary`, `HOST:PORT`.
    """
    draw = random.Random(seed)
    # Without speech: what is tried is the way to the model, not the model.
    good = [coded(tone(0.6, 2), muxer, codec) for _, muxer, codec in CONTAINERS]
    recorded = [path.read_bytes() for path in folder]
    fixed = [
        *(("lies", data) for data in _lies()),
        *(("bombs", data) for data in _bombs()),
        *(("others", data) for data in _others()),
        *(("others", head + text) for head in HEADS for text in _texts(canary)),
    ]
    draw.shuffle(fixed)
    fixed = fixed[: n // 2]
    yield from fixed
    for i in range(n - len(fixed)):
        if recorded and i % FOLDER_EVERY == 0:
            yield "damaged", _damaged(recorded[i // FOLDER_EVERY % len(recorded)], draw)
        else:
            yield "damaged", _damaged(good[i % len(good)], draw)


def _damaged(data: bytes, draw: random.Random) -> bytes:
    found = bytearray(data)
    for _ in range(draw.choice((1, 1, 2, 5, 40))):
        # Half of the damage is near the beginning, where the headers are.
        at = draw.randrange(len(found) if draw.random() < 0.5 else min(len(found), 512))
        size = draw.choice((1, 2, 8, 200))
        match draw.randrange(5):
            case 0:
                found[at : at + size] = draw.randbytes(len(found[at : at + size]))
            case 1:
                found[at] ^= 1 << draw.randrange(8)
            case 2:
                del found[at : at + size]
            case 3:
                found[at:at] = found[at : at + size]
            case _:
                found[at : at + 4] = draw.choice(
                    (b"\xff\xff\xff\xff", b"\0\0\0\0", b"\x7f\xff\xff\xff")
                )
        if len(found) < 64:
            break
    return bytes(found if draw.random() < 0.8 else found[: draw.randrange(1, len(found) + 1)])


def _lies() -> Iterator[bytes]:
    good = wav(tone(0.5))
    for offset, form, values in (
        (24, "<I", (0, 1, 100, 4_000_000_000)),  # samples a second
        (22, "<H", (0, 8, 64, 65_535)),  # channels
        (34, "<H", (0, 1, 7, 65_535)),  # bits a sample
        (20, "<H", (0, 2, 0x55, 0xFFFE)),  # format
        (40, "<I", (0, 1, 0xFFFFFFFF, 1 << 30)),  # length
        (16, "<I", (0, 0xFFFFFFFF)),  # length of the format
    ):
        for value in values:
            data = bytearray(good)
            struct.pack_into(form, data, offset, value)
            yield bytes(data)
    for n_channels in (5, 8):
        yield wav(tone(0.5, n_channels))
        yield _quiet("flac", "flac", {5: "5.0", 8: "7.1"}[n_channels], 1)
    yield _quiet("ogg", "libopus", "7.1", 1)
    for _, muxer, codec in CONTAINERS:
        data = coded(tone(2.0), muxer, codec)
        yield from (data[: len(data) * part // 8] for part in range(1, 8))


def _bombs() -> Iterator[bytes]:
    yield _quiet("flac", "flac", "mono", 600)
    yield _quiet("ogg", "libopus", "mono", 200)
    good = wav(tone(0.5))
    yield good[:12] + b"LIST\x04\x00\x00\x00INFO" * 100_000 + good[12:]
    yield good[:12] + b"junk\xff\xff\xff\x7f" + good[12:]
    yield b"ID3\x04\x00\x00\x7f\x7f\x7f\x7f" + coded(tone(0.5), "mp3", "libmp3lame")
    yield b"ID3\x04\x00\x00\x00\x00\x00\x00" * 50_000 + coded(tone(0.5), "mp3", "libmp3lame")
    m4a = coded(tone(0.5), "ipod", "aac")
    for table in (b"stsz", b"stts", b"stsc", b"stco", b"moov", b"mdat"):
        # Counts, or sizes of boxes.
        at = m4a.find(table)
        for offset, count in ((-4, 0x7FFFFFFF), (8, 0x0FFFFFFF), (12, 0x0FFFFFFF)):
            data = bytearray(m4a)
            struct.pack_into(">I", data, at + offset, count)
            yield bytes(data)
    boxes = b"".join(struct.pack(">I", 8 * (5000 - i)) + b"moov" for i in range(5000))
    yield b"\0\0\0\x20ftypM4A " + bytes(20) + boxes
    webm = coded(tone(0.5), "webm", "libopus")
    for element in (b"\x18\x53\x80\x67", b"\x16\x54\xae\x6b", b"\x1f\x43\xb6\x75"):
        at = webm.find(element) + len(element)
        yield webm[:at] + b"\x01\x00\x00\x7f\xff\xff\xff\xff" + webm[at + 8 :]
    yield webm[:4] + b"\x01\xff\xff\xff\xff\xff\xff\xfe" + webm[5:]
    ogg = coded(tone(0.5), "ogg", "libopus")
    yield ogg + b"OggS\x00\x02" + bytes(21) + b"\xff" + b"\xff" * 255 + bytes(255 * 255)
    yield ogg[:27] * 50_000


def _others() -> Iterator[bytes]:
    for muxer, codec in (
        ("matroska", "mpeg4"),
        ("mp4", "mpeg4"),
        ("webm", "libvpx"),
        ("avi", "mpeg4"),
    ):
        yield _video(muxer, codec)
    for codec, name in (("png", "rgb24"), ("mjpeg", "yuvj420p")):
        yield _picture(codec, name)
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as found:
        found.writestr("recording.wav", bytes(64 << 20))
    yield archive.getvalue()
    yield b"PK\x03\x04" + bytes(60)
    yield b""
    yield bytes(1)
    yield bytes(1 << 20)


def _texts(canary: str) -> Iterator[bytes]:
    address = f"http://{canary}/a"
    host, _, port = canary.rpartition(":")
    yield f"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n{address}.ts\n".encode()
    yield f'#EXTM3U\n#EXT-X-KEY:METHOD=AES-128,URI="{address}"\n#EXTINF:9,\n/etc/passwd\n'.encode()
    yield (
        f"v=0\r\no=- 0 0 IN IP4 {host}\r\ns=x\r\nc=IN IP4 {host}\r\nt=0 0\r\n"
        f"m=audio {port} RTP/AVP 0\r\n"
    ).encode()
    yield b"ffconcat version 1.0\nfile /etc/passwd\n"
    yield f"ffconcat version 1.0\nfile {address}\n".encode()
    yield f"<?xml version='1.0'?><MPD><BaseURL>{address}/</BaseURL></MPD>".encode()
    yield b"<svg xmlns='http://www.w3.org/2000/svg'/>"
    yield f"[playlist]\nFile1={address}\nNumberOfEntries=1\n".encode()
    yield b""


def _quiet(muxer: str, codec: str, layout: str, seconds: int) -> bytes:
    """Silence in so many channels, encoded second by second."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format=muxer) as container:
        stream = container.add_stream(codec, rate=48_000, layout=layout)
        resampler = av.AudioResampler(
            stream.format, layout, 48_000, frame_size=stream.frame_size or None
        )
        silence = np.zeros((1, stream.channels * 48_000), dtype=np.float32)
        for second in range(seconds):
            frame = av.AudioFrame.from_ndarray(silence, format="flt", layout=layout)
            frame.rate, frame.pts = 48_000, second * 48_000
            for part in resampler.resample(frame):
                container.mux(stream.encode(part))
        for part in resampler.resample(None):
            container.mux(stream.encode(part))
        container.mux(stream.encode(None))
    return buffer.getvalue()


def _video(muxer: str, codec: str) -> bytes:
    buffer = io.BytesIO()
    with av.open(buffer, "w", format=muxer) as container:
        stream = container.add_stream(codec, rate=10)
        stream.width = stream.height = 32
        stream.pix_fmt = "yuv420p"
        container.mux(stream.encode(av.VideoFrame(32, 32, "yuv420p")))
        container.mux(stream.encode(None))
    return buffer.getvalue()


def _picture(codec: str, pixels: str) -> bytes:
    """A picture of 16 million pixels in one colour."""
    context = av.CodecContext.create(codec, "w")
    context.width = context.height = 4000
    context.pix_fmt = pixels
    context.time_base = Fraction(1, 10)
    packets = [*context.encode(av.VideoFrame(4000, 4000, pixels)), *context.encode(None)]
    return b"".join(bytes(packet) for packet in packets)
