"""`scripts/bench speech`: what is heard, when and by whom, beside plain faster-whisper in the same run.

    --clinic DIR      recordings with an index.json of their turns (doctor left, patient right)
    --sentence DIR    test.wav with the times of its words in test_data.json
    --noise-s 50      seconds of each noise at each of three levels; 0 leaves noises out
    --served          the same recordings through a daemon as well
    --visits N        the first recordings alone

Plain faster-whisper hears the mix with its own voice detection, beam 5 and words; both in this process, with
as many threads, file by file in turn, after a first file that is not counted. Word error rates are over all
words of all files, in lower case and without punctuation (jiwer). Processor time is that of this process, the
daemon and its workers, and holds beside other programs as well.
"""

from __future__ import annotations

import argparse
import difflib
import json
import os
import re
import statistics
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import jiwer
import msgspec
import numpy as np
import psutil
from faster_whisper import WhisperModel
from faster_whisper.audio import decode_audio
from rich.console import Console
from rich.table import Table

from edgeagent.speech.audio import blocks
from edgeagent.speech.options import SpeechOptions
from edgeagent.speech.segments import Segment, Word, text_of
from edgeagent.speech.transcriber import Transcriber, survey
from edgeagent.speech.whisper import Whisper
from scripts.benchmarks import machine
from scripts.benchmarks.noises import LEVELS_DB, NOISES, noise, wav
from scripts.benchmarks.served import Served, serving

MODEL = "whisper-tiny.en"
SHARED = Path(__file__).resolve().parents[3] / "shared" / "audio"
NEAR_S = 0.2
PLAIN, SERVED = "plain faster-whisper, mixed", "ours, served"
SIDES = {"doctor": "A", "patient": "B"}
console = Console()


def plain(text: str) -> str:
    """Lower case, no punctuation."""
    return " ".join(re.sub(r"[^a-z0-9' ]", " ", text.lower().replace("’", "'")).split())


@dataclass
class Tally:
    """One way to hear all files."""

    said: list[str] = field(default_factory=list)
    heard: list[str] = field(default_factory=list)
    seconds: float = 0.0
    cpu_s: float = 0.0
    bounds: list[float] = field(default_factory=list)
    n_right: int = 0
    n_words: int = 0

    @property
    def error_rate(self) -> float:
        return float(jiwer.wer(self.said, self.heard))

    def add(self, turns: list[dict[str, Any]], segments: list[Segment]) -> None:
        """Compare what was heard with the turns: times of their first and last words, and speakers."""
        said = [(turn, i) for turn in turns for i in range(len(plain(turn["text"]).split()))]
        texts = [word for turn in turns for word in plain(turn["text"]).split()]
        heard = [
            (part, word)
            for segment in segments
            for word in segment.words
            for part in plain(word.text).split()
        ]
        match = difflib.SequenceMatcher(None, texts, [part for part, _ in heard], autojunk=False)
        for block in match.get_matching_blocks():
            for i in range(block.size):
                turn, position = said[block.a + i]
                self._compare(turn, position, heard[block.b + i][1])

    def _compare(self, turn: dict[str, Any], position: int, word: Word) -> None:
        self.n_words += 1
        self.n_right += word.speaker == SIDES[turn["speaker"]]
        if position == 0:
            self.bounds.append(abs(word.start_s - turn["start"]))
        if position == len(plain(turn["text"]).split()) - 1:
            self.bounds.append(abs(word.end_s - turn["end"]))


def hear(transcriber: Transcriber, data: bytes, **options: Any) -> list[Segment]:
    wanted = msgspec.convert(options, SpeechOptions)
    steps = transcriber.transcribe(data, wanted, survey(data))
    return [segment for found in steps if found is not None for segment in found.segments]


def hear_plainly(model: WhisperModel, path: Path) -> list[Segment]:
    found, _ = model.transcribe(
        decode_audio(str(path)), beam_size=5, vad_filter=True, word_timestamps=True, language="en"
    )
    return [
        Segment(
            start_s=s.start, end_s=s.end, text=s.text,
            words=tuple(Word(text=w.word, start_s=w.start, end_s=w.end) for w in s.words or ()),
        )
        for s in found
    ]  # fmt: skip


def measure_clinic(
    folder: Path, model_dir: Path, n_threads: int, n_visits: int | None, daemon: Served | None
) -> tuple[dict[str, Tally], float]:
    """Each way to hear the first visits, file by file in turn; and how many seconds of audio these are."""
    bare = WhisperModel(str(model_dir), device="cpu", compute_type="int8", cpu_threads=n_threads)
    transcriber = Transcriber(Whisper(model_dir, n_threads=n_threads))
    ways: dict[str, Callable[[Path], list[Segment]]] = {
        PLAIN: lambda path: hear_plainly(bare, path),
        "ours, mixed": lambda path: hear(transcriber, path.read_bytes()),
        "ours, speakers by channel": lambda path: hear(
            transcriber, path.read_bytes(), speakers="channel"
        ),
    }
    visits = json.loads((folder / "index.json").read_text())[:n_visits]
    paths = [next(folder.glob(f"{visit['file']}.*")) for visit in visits]
    if daemon is not None:
        http = httpx.Client(base_url=daemon.url, timeout=600)
        ways[SERVED] = lambda path: hear_served(http, path)
    for way in ways.values():
        way(paths[0])  # loads what is loaded at the first use
    tallies = {name: Tally() for name in ways}
    for visit, path in zip(visits, paths, strict=True):
        for name, way in ways.items():
            tally, started, cpu_s = tallies[name], time.perf_counter(), _cpu_s(daemon)
            segments = way(path)
            tally.seconds += time.perf_counter() - started
            tally.cpu_s += _cpu_s(daemon) - cpu_s
            tally.said.append(plain(" ".join(turn["text"] for turn in visit["turns"])))
            tally.heard.append(plain(text_of(segments)))
            tally.add(visit["turns"], segments)
        console.print(
            f"  {path.name}: " + ", ".join(f"{t.error_rate:.1%}" for t in tallies.values())
        )
    return tallies, sum(visit["seconds"] for visit in visits)


def _cpu_s(daemon: Served | None) -> float:
    """Processor seconds of this process, the daemon and its workers."""
    processes = [psutil.Process()]
    if daemon is not None:
        served = psutil.Process(daemon.process.pid)
        processes += [served, *served.children(recursive=True)]
    return sum(sum(process.cpu_times()[:2]) for process in processes)


def show_clinic(tallies: dict[str, Tally], audio_s: float) -> None:
    table = Table(
        "", "word error rate", "turns within 200 ms", "right speaker", "real-time factor", "of plain's",
        "CPU of plain's",
    )  # fmt: skip
    for name, tally in tallies.items():
        near = np.mean([b <= NEAR_S for b in tally.bounds])
        right = f"{tally.n_right / tally.n_words:.1%}" if tally.n_right else "-"
        table.add_row(
            name, f"{tally.error_rate:.2%}", f"{near:.1%}", right, f"{tally.seconds / audio_s:.3f}",
            f"{tally.seconds / tallies[PLAIN].seconds:.3f}", f"{tally.cpu_s / tallies[PLAIN].cpu_s:.3f}",
        )  # fmt: skip
    console.print(table)


def measure_sentence(folder: Path, model_dir: Path) -> None:
    tests = json.loads((folder / "test_data.json").read_text())["tests"]["language_tests"]
    given = next(test for test in tests if test["language"] == "en")
    transcriber = Transcriber(Whisper(model_dir, n_threads=1))
    segments = hear(transcriber, (folder / given["audio_file"]).read_bytes())
    words = [word for segment in segments for word in segment.words]
    errors = [abs(w.start_s - g["start_sec"]) for w, g in zip(words, given["words"], strict=False)]
    console.print(
        f"one sentence: {len(words)} of {len(given['words'])} words; starts off by "
        f"{statistics.median(errors) * 1e3:.0f} ms at the median, {max(errors) * 1e3:.0f} ms at most"
    )


def measure_noises(folder: Path, model_dir: Path, seconds: float) -> None:
    """Words that nobody said, in noises alone and in the pauses of a recording with a noise under it."""
    transcriber = Transcriber(Whisper(model_dir, n_threads=1))
    n_words = {
        (name, level): sum(
            len(segment.words) for segment in hear(transcriber, wav(noise(name, seconds, level)))
        )
        for name in NOISES
        for level in LEVELS_DB
    }
    total_s = seconds * len(n_words)
    console.print(f"{total_s / 60:.0f} minutes of noises: {sum(n_words.values())} words")
    visit = json.loads((folder / "index.json").read_text())[0]
    path = next(p for p in folder.glob(f"{visit['file']}.*"))
    samples = np.concatenate(list(blocks(path.read_bytes())), axis=1).mean(axis=0)
    level = 20 * float(np.log10(np.sqrt(np.mean(samples**2)))) - 10
    for name in NOISES:
        under = noise(name, len(samples) / 16_000, level)[: len(samples)]
        words = [w for s in hear(transcriber, wav(samples + under)) for w in s.words]
        invented = [w for w in words if not any(_is_within(w, turn) for turn in visit["turns"])]
        console.print(f"  {name} 10 dB below speech: {len(words)} words, {len(invented)} in pauses")


def _is_within(word: Word, turn: dict[str, Any]) -> bool:
    return turn["start"] - 0.3 < word.middle_s < turn["end"] + 0.3


def hear_served(http: httpx.Client, path: Path) -> list[Segment]:
    form = {
        "model": MODEL, "response_format": "verbose_json",
        "timestamp_granularities[]": ["word", "segment"],
    }  # fmt: skip
    answer = http.post(
        "/v1/audio/transcriptions", files={"file": (path.name, path.read_bytes())}, data=form
    )
    found = answer.raise_for_status().json()
    words = tuple(Word(text=w["word"], start_s=w["start"], end_s=w["end"]) for w in found["words"])
    whole = Segment(start_s=0.0, end_s=found["duration"], text=found["text"], words=words)
    return [whole]


def _peak_bytes(process: psutil.Process) -> int:
    status = Path(f"/proc/{process.pid}/status").read_text()
    match = re.search(r"VmHWM:\s+(\d+) kB", status)
    return int(match[1]) * 1024 if match else 0


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--models-dir", type=Path, default=Path(".cache/models"))
    parser.add_argument("--clinic", type=Path, default=SHARED / "clinic")
    parser.add_argument("--sentence", type=Path, default=SHARED / "leopard")
    parser.add_argument("--noise-s", type=float, default=50.0)
    parser.add_argument("--visits", type=int, default=None)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--served", action="store_true")
    args = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = str(args.threads)
    model_dir = next((args.models_dir / MODEL).rglob("model.bin")).parent
    console.print(f"{machine.describe()}, {MODEL}, int8, {args.threads} thread(s)")
    if args.clinic.is_dir():
        with ExitStack() as stack:
            daemon = None
            if args.served:
                daemon = stack.enter_context(
                    serving(args.models_dir, preload=False, n_threads=args.threads)
                )
            show_clinic(*measure_clinic(args.clinic, model_dir, args.threads, args.visits, daemon))
            if daemon is not None:
                (worker,) = daemon.children("edgeagent.speech.worker")
                console.print(f"worker at most {_peak_bytes(worker) / 1e6:.0f} MB")
        if args.noise_s:
            measure_noises(args.clinic, model_dir, args.noise_s)
    if args.sentence.is_dir():
        measure_sentence(args.sentence, model_dir)
