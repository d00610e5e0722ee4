"""`scripts/bench speech`: what is heard, when and by whom, beside plain faster-whisper in the same run.

    --clinic DIR      recordings with an index.json of their turns (doctor left, patient right)
    --sentence DIR    test.wav with the times of its words in test_data.json
    --noise-s 50      seconds of each noise at each of three levels; 0 leaves noises out
    --served          the same recordings through a daemon

Plain faster-whisper hears the mix with its own voice detection, beam 5 and words; both in this process, with
as many threads, file by file in turn. Word error rates are over all words of all files, in lower case and
without punctuation (jiwer).
"""

from __future__ import annotations

import argparse
import difflib
import json
import os
import re
import statistics
import time
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
from scripts.benchmarks.served import serving

MODEL = "whisper-tiny.en"
SHARED = Path(__file__).resolve().parents[3] / "shared" / "audio"
NEAR_S = 0.2
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


def measure_clinic(folder: Path, model_dir: Path, n_threads: int) -> dict[str, Tally]:
    bare = WhisperModel(str(model_dir), device="cpu", compute_type="int8", cpu_threads=n_threads)
    transcriber = Transcriber(Whisper(model_dir, n_threads=n_threads))
    ways = {
        "plain faster-whisper, mixed": lambda path: hear_plainly(bare, path),
        "ours, mixed": lambda path: hear(transcriber, path.read_bytes()),
        "ours, speakers by channel": lambda path: hear(
            transcriber, path.read_bytes(), speakers="channel"
        ),
    }
    tallies = {name: Tally() for name in ways}
    for visit in json.loads((folder / "index.json").read_text()):
        path = next(p for p in folder.glob(f"{visit['file']}.*"))
        for name, way in ways.items():
            tally, started = tallies[name], time.perf_counter()
            segments = way(path)
            tally.seconds += time.perf_counter() - started
            tally.said.append(plain(" ".join(turn["text"] for turn in visit["turns"])))
            tally.heard.append(plain(text_of(segments)))
            tally.add(visit["turns"], segments)
        console.print(
            f"  {path.name}: " + ", ".join(f"{t.error_rate:.1%}" for t in tallies.values())
        )
    return tallies


def show_clinic(tallies: dict[str, Tally], audio_s: float) -> None:
    table = Table("", "word error rate", "turns within 200 ms", "right speaker", "real-time factor")
    for name, tally in tallies.items():
        near = np.mean([b <= NEAR_S for b in tally.bounds])
        right = f"{tally.n_right / tally.n_words:.1%}" if tally.n_right else "-"
        table.add_row(
            name, f"{tally.error_rate:.2%}", f"{near:.1%}", right, f"{tally.seconds / audio_s:.3f}"
        )
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


def measure_served(folder: Path, models_dir: Path, model_dir: Path, n_threads: int) -> None:
    """The same recordings through a daemon and in this process, in turn; memory of the worker."""
    transcriber = Transcriber(Whisper(model_dir, n_threads=n_threads))
    ratios, peak = [], 0
    with serving(models_dir, preload=False, n_threads=n_threads) as daemon:
        paths = sorted(p for p in folder.iterdir() if p.suffix not in (".json", ".md"))
        with httpx.Client(base_url=daemon.url, timeout=600) as http:
            _post(http, paths[0])  # loads the model
            for path in paths:
                started = time.perf_counter()
                _post(http, path)
                served_s = time.perf_counter() - started
                (worker,) = daemon.children("edgeagent.speech.worker")
                peak = max(peak, _peak_bytes(worker))
                started = time.perf_counter()
                hear(transcriber, path.read_bytes())
                ratios.append(served_s / (time.perf_counter() - started))
    console.print(
        f"served: {statistics.median(ratios):.3f} times the time of a call in process (median of "
        f"{len(ratios)}); worker at most {peak / 1e6:.0f} MB"
    )


def _post(http: httpx.Client, path: Path) -> None:
    form = {"model": MODEL, "response_format": "verbose_json"}
    answer = http.post(
        "/v1/audio/transcriptions", files={"file": (path.name, path.read_bytes())}, data=form
    )
    answer.raise_for_status()


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
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--served", action="store_true")
    args = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = str(args.threads)
    model_dir = next((args.models_dir / MODEL).rglob("model.bin")).parent
    console.print(f"{machine.describe()}, {MODEL}, int8, {args.threads} thread(s)")
    if args.clinic.is_dir():
        visits = json.loads((args.clinic / "index.json").read_text())
        tallies = measure_clinic(args.clinic, model_dir, args.threads)
        show_clinic(tallies, sum(visit["seconds"] for visit in visits))
        if args.noise_s:
            measure_noises(args.clinic, model_dir, args.noise_s)
        if args.served:
            measure_served(args.clinic, args.models_dir, model_dir, args.threads)
    if args.sentence.is_dir():
        measure_sentence(args.sentence, model_dir)
