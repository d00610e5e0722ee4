"""`scripts/bench speech-models`: what larger Whisper models cost here, one window at a time and in batches.

    --shapes tiny base small   tiny is whisper-tiny.en as installed; the others have its vocabulary and random
                               weights in the shape of Whisper base and small
    --threads 1 2              of each
    --batches 1 4              windows computed at once
    --rounds 3                 the fastest of so many
    --clinic DIR               recordings with an index.json of their turns, for the second table

First table: each row is a process of its own, in int8. A window is 30 s for the encoder and `N_TOKENS`
tokens of text, which is what speech of that length has, with a beam of 5; random weights say nonsense,
but take as long. The real-time factor is the time for a window over 30 s. Second table: the first recordings
as one, heard by us, by faster-whisper window after window, and by its batched pipeline. CPU is processor
seconds for a second of audio; memory is what the model and its work add to the peak of the process.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ctranslate2
import jiwer
import numpy as np
from ctranslate2.specs.whisper_spec import WhisperSpec
from faster_whisper import BatchedInferencePipeline, WhisperModel
from rich.console import Console
from rich.table import Table

from edgeagent.speech.audio import RATE_HZ, blocks
from edgeagent.speech.segments import text_of
from edgeagent.speech.transcriber import Transcriber
from edgeagent.speech.whisper import Whisper
from scripts.benchmarks import machine
from scripts.benchmarks.noises import wav
from scripts.benchmarks.speech import MODEL, SHARED, hear, plain
from scripts.faults.speech_jobs import peak

WINDOW_S, N_TOKENS, BEAM_SIZE = 30, 80, 5
N_MELS, N_FRAMES = 80, 3000
# Layers, heads and width of encoder and decoder alike (Radford et al. 2022, arXiv:2212.04356, table 1).
SHAPES = {"base": (6, 8, 512), "small": (12, 12, 768)}
N_RECORDINGS = 6
WAYS = ("ours", "plain", "batches of 1", "batches of 4", "batches of 8")
console = Console()


def make_whisper(folder: Path, tiny: Path, shape: tuple[int, int, int]) -> None:
    """Random weights of a shape, with the vocabulary and the tokenizer of whisper-tiny.en."""
    n_layers, n_heads, width = shape
    draw = np.random.default_rng(0)
    spec: Any = WhisperSpec(n_layers, n_heads, n_layers, n_heads)

    def weights(*sizes: int) -> Any:
        return (draw.standard_normal(sizes, dtype=np.float32) * 0.02).astype(np.float16)

    def linear(layer: Any, n_out: int, n_in: int) -> None:
        layer.weight, layer.bias = weights(n_out, n_in), weights(n_out)

    def norm(layer: Any) -> None:
        layer.gamma, layer.beta = np.ones(width, np.float16), np.zeros(width, np.float16)

    def feed_forward(layer: Any) -> None:
        norm(layer.layer_norm)
        linear(layer.linear_0, 4 * width, width)
        linear(layer.linear_1, width, 4 * width)

    def attention(layer: Any, *n_outs: int) -> None:
        norm(layer.layer_norm)
        for part, n_out in zip(layer.linear, n_outs, strict=True):
            linear(part, n_out, width)

    encoder, decoder = spec.encoder, spec.decoder
    for conv, n_in in ((encoder.conv1, N_MELS), (encoder.conv2, width)):
        conv.weight, conv.bias = weights(width, n_in, 3), weights(width)
    encoder.position_encodings.encodings = weights(N_FRAMES // 2, width)
    decoder.position_encodings.encodings = weights(448, width)
    words = (tiny / "vocabulary.txt").read_text().splitlines()
    decoder.embeddings.weight = decoder.projection.weight = weights(len(words), width)
    for layer in encoder.layer:
        attention(layer.self_attention, 3 * width, width)
        feed_forward(layer.ffn)
    for layer in decoder.layer:
        attention(layer.self_attention, 3 * width, width)
        attention(layer.attention, width, 2 * width, width)
        feed_forward(layer.ffn)
    norm(encoder.layer_norm)
    norm(decoder.layer_norm)
    spec.register_vocabulary(words)
    spec.validate()
    spec.save(str(folder))
    shutil.copy(tiny / "tokenizer.json", folder)
    config = json.loads((tiny / "config.json").read_text())
    config["alignment_heads"] = [[n_layers - 1, head] for head in range(n_heads)]
    (folder / "config.json").write_text(json.dumps(config))


def measure_window(folder: Path, n_threads: int, n_batch: int, n_rounds: int) -> dict[str, float]:
    """Seconds and CPU seconds of one window, and what the peak memory of this process has risen by."""
    before = peak(os.getpid())
    model = ctranslate2.models.Whisper(
        str(folder), device="cpu", compute_type="int8", intra_threads=n_threads, inter_threads=1
    )
    features = np.random.default_rng(1).standard_normal((n_batch, N_MELS, N_FRAMES), np.float32)
    start, eot = [50257], 50256
    took = []
    for _ in range(n_rounds):
        at, cpu = time.perf_counter(), time.process_time()
        encoded = model.encode(ctranslate2.StorageView.from_array(features))
        model.generate(
            encoded, [start] * n_batch, beam_size=BEAM_SIZE, max_length=N_TOKENS,
            suppress_tokens=[-1, eot],
        )  # fmt: skip
        took.append((time.perf_counter() - at, time.process_time() - cpu))
    wall_s, cpu_s = min(took)
    return {
        "wall_s": wall_s / n_batch,
        "cpu_s": cpu_s / n_batch,
        "bytes": float(peak(os.getpid()) - before),
    }


def measure_recordings(clinic: Path, model: Path, n_threads: int, way: str) -> dict[str, float]:
    """The same for recordings with speech, one way; with the word error rate."""
    samples, said = _together(clinic)
    before = peak(os.getpid())
    hear_it = _way(model, n_threads, way)
    at, cpu = time.perf_counter(), time.process_time()
    text = hear_it(samples)
    wall_s, cpu_s = time.perf_counter() - at, time.process_time() - cpu
    seconds = len(samples) / RATE_HZ
    return {
        "wall_s": wall_s / seconds, "cpu_s": cpu_s / seconds, "bytes": float(peak(os.getpid()) - before),
        "errors": float(jiwer.wer(said, plain(text))),
    }  # fmt: skip


def _together(clinic: Path) -> tuple[Any, str]:
    pause = np.zeros(RATE_HZ, np.float32)
    visits = json.loads((clinic / "index.json").read_text())[:N_RECORDINGS]
    parts = []
    for visit in visits:
        data = next(clinic.glob(f"{visit['file']}.*")).read_bytes()
        parts += [np.concatenate(list(blocks(data)), axis=1).mean(axis=0), pause]
    texts = (turn["text"] for visit in visits for turn in visit["turns"])
    return np.concatenate(parts), plain(" ".join(texts))


def _way(folder: Path, n_threads: int, way: str) -> Callable[[Any], str]:
    if way == "ours":
        transcriber = Transcriber(Whisper(folder, n_threads=n_threads))
        return lambda samples: text_of(hear(transcriber, wav(samples)))
    model = WhisperModel(str(folder), device="cpu", compute_type="int8", cpu_threads=n_threads)
    options: dict[str, Any] = {"beam_size": BEAM_SIZE, "word_timestamps": True, "language": "en"}
    if way == "plain":
        return lambda samples: _joined(model.transcribe(samples, vad_filter=True, **options))
    options |= {"batch_size": int(way.split()[-1]), "without_timestamps": False}
    return lambda samples: _joined(BatchedInferencePipeline(model).transcribe(samples, **options))


def _joined(found: tuple[Any, Any]) -> str:
    return " ".join(segment.text for segment in found[0])


def _in_a_process(*arguments: object) -> dict[str, float]:
    """Run this module in a process of its own, whose memory is that of the row alone."""
    command = [sys.executable, "-m", "scripts.benchmarks.speech_models", *map(str, arguments)]
    found: dict[str, float] = json.loads(subprocess.check_output(command, text=True))
    return found


def _row(found: dict[str, float], per_s: float = 1.0) -> tuple[str, str, str]:
    return (
        f"{found['wall_s'] / per_s:.3f}", f"{found['cpu_s'] / per_s:.3f}", f"{found['bytes'] / 1e6:.0f} MB",
    )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--models-dir", type=Path, default=Path(".cache/models"))
    parser.add_argument("--clinic", type=Path, default=SHARED / "clinic")
    parser.add_argument("--shapes", nargs="*", default=["tiny", *SHAPES])
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 4])
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    tiny = args.models_dir / MODEL
    console.print(f"{machine.describe()}, int8, load {os.getloadavg()[0]:.1f}")
    windows = Table("model", "threads", "batch", "real-time factor", "CPU", "memory")
    with tempfile.TemporaryDirectory() as made:
        for shape in args.shapes:
            folder = tiny if shape == "tiny" else Path(made, shape)
            if shape != "tiny":
                folder.mkdir()
                make_whisper(folder, tiny, SHAPES[shape])
            for n_threads in args.threads:
                for n_batch in args.batches:
                    found = _in_a_process("window", folder, n_threads, n_batch, args.rounds)
                    windows.add_row(shape, str(n_threads), str(n_batch), *_row(found, WINDOW_S))
    console.print(windows)
    if not args.clinic.is_dir():
        return
    recordings = Table("way", "threads", "word errors", "real-time factor", "CPU", "memory")
    for n_threads in args.threads:
        for way in WAYS:
            found = _in_a_process("recordings", tiny, n_threads, args.clinic, way)
            recordings.add_row(way, str(n_threads), f"{found['errors']:.2%}", *_row(found))
    console.print(recordings)
    console.print(f"load {os.getloadavg()[0]:.1f}")


def measure_one() -> None:
    """What `_in_a_process` runs."""
    what, folder, n_threads, *rest = sys.argv[1:]
    if what == "window":
        found = measure_window(Path(folder), int(n_threads), int(rest[0]), int(rest[1]))
    else:
        found = measure_recordings(Path(rest[0]), Path(folder), int(n_threads), rest[1])
    print(json.dumps(found))


if __name__ == "__main__":
    measure_one()
