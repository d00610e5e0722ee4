"""`scripts/bench live`: live transcription as it is spoken, beside the batch on the same audio.

    --clinic DIR      recordings with an index.json of their turns; without them, the dialogue of the tests
    --sessions 4      how many stream at once, each a recording of its own, in real time
    --seconds 60      of each recording at most
    --chat            a chat with SmolLM2 beside it all, and its rate alone, with two threads and with one

Through a daemon of its own with Whisper tiny.en and two threads: first one session, then all at once. The
delay of a word is from its end in the recording, by the batch's word times, to the event that makes it final.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import difflib
import json
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import jiwer
import numpy as np
from rich.console import Console
from rich.table import Table
from websockets.asyncio.client import connect

from edgeagent.speech.audio import RATE_HZ, blocks
from scripts.benchmarks import machine
from scripts.benchmarks.chat_rate import ChatRate
from scripts.benchmarks.noises import wav
from scripts.benchmarks.served import serving
from scripts.benchmarks.speech import MODEL, SHARED, plain
from tests.conftest import ROOT

PIECE_S = 0.1
# How long the chat is measured by itself.
ALONE_S = 15.0
TRANSCRIPTION = "conversation.item.input_audio_transcription"
console = Console()


@dataclass
class Recording:
    """One file: what is said in it, its samples, and what the batch hears, with the end of each word."""

    name: str
    said: str
    pcm: bytes
    heard: str = ""
    word_ends: list[tuple[str, float]] = field(default_factory=list)

    @property
    def seconds(self) -> float:
        return len(self.pcm) / 2 / RATE_HZ


@dataclass
class LiveResult:
    """What one session told, when: seconds since its first sample was sent."""

    recording: Recording
    words: list[tuple[str, float]] = field(default_factory=list)
    end_s: float = 0.0

    @property
    def text(self) -> str:
        return " ".join(word for word, _ in self.words)

    def delays_s(self) -> list[float]:
        """Of the words that the batch hears too."""
        ours, theirs = self.words, self.recording.word_ends
        match = difflib.SequenceMatcher(
            None, [word for word, _ in theirs], [word for word, _ in ours], autojunk=False
        )
        return [
            ours[block.b + i][1] - theirs[block.a + i][1]
            for block in match.get_matching_blocks()
            for i in range(block.size)
        ]


def recordings(clinic: Path, n: int, seconds: float) -> list[Recording]:
    """`n` recordings, mixed to one channel, cut at the end of a turn."""
    if (clinic / "index.json").is_file():
        index = json.loads((clinic / "index.json").read_text())[:n]
        files = [next(clinic.glob(f"{visit['file']}.*")) for visit in index]
        turns = [visit["turns"] for visit in index]
    else:
        path = ROOT / "tests" / "data" / "dialogue.ogg"
        found = json.loads(path.with_suffix(".json").read_text())
        one = [{"text": t["text"], "end": t["end_s"]} for t in found]
        files, turns = [path] * n, [one] * n
    return [_recording(path, one, seconds) for path, one in zip(files, turns, strict=True)]


def _recording(path: Path, turns: list[dict[str, Any]], seconds: float) -> Recording:
    samples = np.concatenate(list(blocks(path.read_bytes())), axis=1).mean(axis=0)
    kept = [turn for turn in turns if turn["end"] <= seconds]
    if len(kept) < len(turns):
        samples = samples[: round((kept[-1]["end"] + 0.3) * RATE_HZ)]
    said = plain(" ".join(turn["text"] for turn in kept))
    return Recording(path.name, said, (samples * 32767).astype("<i2").tobytes())


def hear_batch(url: str, recording: Recording) -> None:
    samples = np.frombuffer(recording.pcm, "<i2").astype(np.float32)[None] / 32768
    form = {"response_format": "verbose_json", "timestamp_granularities[]": "word"}
    found = httpx.post(
        f"{url}/v1/audio/transcriptions", files={"file": ("visit.wav", wav(samples))}, data=form,
        timeout=300,
    ).json()  # fmt: skip
    recording.heard = plain(found["text"])
    recording.word_ends = [
        (part, word["end"]) for word in found["words"] for part in plain(word["word"]).split()
    ]


async def stream(url: str, recording: Recording) -> LiveResult:
    """One session with turn detection, in real time."""
    result = LiveResult(recording)
    socket_url = url.replace("http", "ws") + "/v1/realtime?intent=transcription"
    async with connect(socket_url, max_size=None, proxy=None) as socket:
        form = {"type": "audio/pcm", "rate": RATE_HZ}
        session = {"type": "transcription", "audio": {"input": {"format": form}}}
        await socket.send(json.dumps({"type": "session.update", "session": session}))
        started = time.perf_counter()
        reading = asyncio.create_task(_read(socket, result, started))
        quiet = bytes(2 * RATE_HZ)
        size = round(2 * PIECE_S * RATE_HZ)
        data = recording.pcm + quiet
        for i, at in enumerate(range(0, len(data), size)):
            await asyncio.sleep(max(0.0, started + i * PIECE_S - time.perf_counter()))
            audio = base64.b64encode(data[at : at + size]).decode()
            await socket.send(json.dumps({"type": "input_audio_buffer.append", "audio": audio}))
        await reading
    return result


async def _read(socket: Any, result: LiveResult, started: float) -> None:
    """Note words as they become final, until the audio is over and nothing more comes."""
    n_open = 0
    while True:
        left_s = started + result.recording.seconds + 1.0 - time.perf_counter()
        try:
            async with asyncio.timeout(30 if n_open else max(0.05, left_s) + 1.0):
                event = json.loads(await socket.recv())
        except TimeoutError:
            return
        now_s = time.perf_counter() - started
        kind = event["type"]
        if kind == "error":
            raise SystemExit(f"the session said: {event['error']['message']}")
        n_open += kind == "input_audio_buffer.speech_started"
        n_open -= kind == f"{TRANSCRIPTION}.completed"
        if kind == f"{TRANSCRIPTION}.delta":
            result.words += [(word, now_s) for word in plain(event["delta"]).split()]
            result.end_s = now_s - result.recording.seconds


def show(rows: list[tuple[str, list[LiveResult]]]) -> None:
    table = Table(
        "", "audio", "word errors, live", "batch", "delay p50", "p95", "last word after the end"
    )
    for name, results in rows:
        said = [r.recording.said for r in results]
        live = jiwer.wer(said, [r.text for r in results])
        batch = jiwer.wer(said, [r.recording.heard for r in results])
        delays = [delay for r in results for delay in r.delays_s()]
        p50, p95 = np.percentile(delays, [50, 95])
        audio_s = sum(r.recording.seconds for r in results)
        table.add_row(
            name, f"{audio_s:.0f} s", f"{live:.2%}", f"{batch:.2%}", f"{p50:.2f} s", f"{p95:.2f} s",
            f"{max(r.end_s for r in results):.2f} s",
        )  # fmt: skip
    console.print(table)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--clinic", type=Path, default=SHARED / "clinic")
    parser.add_argument("--models-dir", type=Path, default=Path(".cache/models"))
    parser.add_argument("--sessions", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--chat", action="store_true")
    options = parser.parse_args()
    console.print(f"{machine.describe()}, {MODEL}, int8, 2 threads")
    found = recordings(options.clinic, options.sessions, options.seconds)
    rates: dict[str, float] = {}
    settings = {"preload": False, "n_threads": 2, "speech.live.max_sessions": options.sessions}
    with serving(options.models_dir, **settings) as daemon:
        for recording in found:
            hear_batch(daemon.url, recording)

        async def at_once(some: list[Recording]) -> list[LiveResult]:
            return list(await asyncio.gather(*(stream(daemon.url, one) for one in some)))

        rows = []
        for name, some in (("one session", found[:1]), (f"{len(found)} sessions at once", found)):
            rows.append((name, asyncio.run(at_once(some))))
            if options.chat:
                chat = ChatRate(daemon.url)
                rows.append((f"{name}, and a chat", asyncio.run(chat.beside(at_once(some)))))
                rates[f"beside {name}"] = chat.tokens_per_s
    show(rows)
    if options.chat:
        for n_threads in (2, 1):
            rates[f"alone, threads: {n_threads}"] = rate_alone(options.models_dir, n_threads)
        show_chat(rates)


def rate_alone(models_dir: Path, n_threads: int) -> float:
    with serving(models_dir, preload=False, n_threads=n_threads) as daemon:
        chat = ChatRate(daemon.url)
        asyncio.run(chat.beside(asyncio.sleep(ALONE_S)))
        return chat.tokens_per_s


def show_chat(rates: dict[str, float]) -> None:
    """The rates of the chat, and their parts of what it has on one core: its share beside one other model."""
    alone = rates["alone, threads: 1"]
    table = Table("chat", "tokens a second", "of its rate on one core")
    for name, rate in rates.items():
        table.add_row(name, f"{rate:.1f}", f"{rate / alone:.0%}")
    console.print(table)
