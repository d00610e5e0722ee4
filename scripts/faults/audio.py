"""Damaged and hostile recordings, thrown at a running daemon. Prints one table.

    scripts/faults/audio.py [--files N] [--seed N] [--models-dir DIR]

    damaged   bytes changed, parts cut out, doubled or swapped, in every container
    lies      forged rates, lengths, channels; hours of silence in a small file; video; tags without audio
    others    playlists, session descriptions, concatenations, SVG, ZIP; with and without a head of audio

The exit status is 1 if the daemon ended, an answer was not 200, 400 or 413, the worker had a socket, or it
held more memory than its bound.
"""

from __future__ import annotations

import argparse
import io
import random
import re
import struct
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import av
import httpx
import numpy as np
import psutil
from rich.console import Console
from rich.progress import track
from rich.table import Table

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from scripts.benchmarks.noises import wav
from tests.conftest import CACHE, DaemonProcess, serving
from tests.speech.recordings import CONTAINERS, coded, tone

MAX_WORKER_BYTES = 700 << 20
OTHERS = (
    b"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nhttp://127.0.0.1:9/a.ts\n",
    b"v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=x\r\nc=IN IP4 127.0.0.1\r\nm=audio 5004 RTP/AVP 0\r\n",
    b"ffconcat version 1.0\nfile /etc/passwd\n",
    b"<?xml version='1.0'?><MPD><BaseURL>http://127.0.0.1:9/</BaseURL></MPD>",
    b"<svg xmlns='http://www.w3.org/2000/svg'/>",
    b"PK\x03\x04" + bytes(60),
    b"[playlist]\nFile1=/etc/passwd\n",
    b"",
)
HEADS = (
    b"",
    b"RIFF\x24\x00\x00\x00WAVE",
    b"fLaC",
    b"OggS\x00\x02",
    b"ID3\x04\x00",
    b"\x1a\x45\xdf\xa3",
    b"\0\0\0\x20ftypM4A ",
)


def files(n: int, seed: int) -> Iterator[tuple[str, bytes]]:
    """`n` files with what is wrong with each; the same for the same seed."""
    draw = random.Random(seed)
    # Without speech: what is tried is the way to the model, not the model.
    good = [coded(tone(0.6, 2), muxer, codec) for _, muxer, codec in CONTAINERS]
    fixed = [*_lies(), *(("others", head + other) for head in HEADS for other in OTHERS)]
    for i in range(n):
        if i < len(fixed):
            yield fixed[i]
        else:
            yield "damaged", _damaged(good[i % len(good)], draw)


def _damaged(data: bytes, draw: random.Random) -> bytes:
    found = bytearray(data)
    for _ in range(draw.choice((1, 1, 2, 5, 40))):
        at = draw.randrange(len(found))
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


def _lies() -> Iterator[tuple[str, bytes]]:
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
            yield "lies", bytes(data)
    yield "lies", wav(tone(0.5, 8))
    yield "lies", coded(np.zeros((1, 16_000 * 400), dtype=np.float32), "flac", "flac")
    yield "lies", _video()
    for _, muxer, codec in CONTAINERS:
        data = coded(tone(2.0), muxer, codec)
        yield from (("lies", data[: len(data) * part // 8]) for part in range(1, 8))


def _video() -> bytes:
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="matroska") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width = stream.height = 32
        stream.pix_fmt = "yuv420p"
        container.mux(stream.encode(av.VideoFrame(32, 32, "yuv420p")))
        container.mux(stream.encode(None))
    return buffer.getvalue()


def throw(daemon: DaemonProcess, n: int, seed: int) -> tuple[dict[str, Counter[str]], list[str]]:
    """What was answered to each kind of file, and what went wrong."""
    found: dict[str, Counter[str]] = {}
    wrong: list[str] = []
    url = f"{daemon.url}/v1/audio/transcriptions"
    console = Console(stderr=True)
    with httpx.Client(timeout=120) as http:
        for i, (kind, data) in enumerate(
            track(files(n, seed), total=n, console=console, disable=not console.is_terminal)
        ):
            answer = http.post(url, files={"file": ("a", data)})
            found.setdefault(kind, Counter())[str(answer.status_code)] += 1
            if answer.status_code not in (200, 400, 413):
                wrong.append(f"file {i} ({kind}): {answer.status_code} {answer.text[:200]}")
            if daemon.process.poll() is not None:
                wrong.append(f"file {i} ({kind}): the daemon ended")
                break
    wrong += _workers(daemon)
    return found, wrong


def _workers(daemon: DaemonProcess) -> list[str]:
    wrong = []
    for child in psutil.Process(daemon.pid).children():
        if "edgeagent.speech.worker" not in child.cmdline():
            continue
        if child.net_connections(kind="inet"):
            wrong.append("the worker has a socket")
        peak = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{child.pid}/status").read_text())
        if peak is None or int(peak[1]) * 1024 > MAX_WORKER_BYTES:
            wrong.append(f"the worker held {peak[1] if peak else '?'} kB")
    return wrong


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--files", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--models-dir", type=Path, default=CACHE)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as state:
        settings = {"preload": False, "speech.max_audio_s": 120.0}
        with serving(args.models_dir, Path(state), **settings) as daemon:
            found, wrong = throw(daemon, args.files, args.seed)
            log = daemon.log.read_text()
    table = Table("files", "answers", "200", "400", "413", "others")
    for kind, counts in found.items():
        others = sum(counts.values()) - sum(counts[s] for s in ("200", "400", "413"))
        table.add_row(
            kind,
            str(sum(counts.values())),
            *(str(counts[s]) for s in ("200", "400", "413")),
            str(others),
        )
    Console().print(table)
    deaths = log.count("worker_died")
    print(f"worker deaths: {deaths}; daemon exits: {sum('daemon ended' in w for w in wrong)}")
    for line in wrong[:20]:
        print(line)
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
