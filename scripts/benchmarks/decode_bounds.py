"""`scripts/bench bounds`: what decoding of one sequence reaches here, by model, and what bounds it.

A token reads all weights once, and needs two operations for each of them (a tied embedding counts, as it is
the output). Measured are a bare llama.cpp loop, the reading rate of the memory, and float32 matrix products
(numpy's BLAS) with as many threads. The parts of a token that each bound alone would take:

  memory      the weights at the reading rate of the memory
  arithmetic  the operations at the rate of prompts of 128 tokens with this model: its own kernels, where
              weights are read once for many tokens
  layers      what a layer of the smallest model takes, for each layer: barriers of threads, small operations

The largest names the bound. Models: stories260K (--stories FILE), the bundled assistants, SmolLM2-135M in
four types, made of the installed file, and random weights in the shape of a model of half a billion.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gguf
from rich.console import Console
from rich.table import Table

from edgeagent.catalog.model_library import Library
from edgeagent.device.microbenchmarks import measure
from edgeagent.device.probe import probe
from edgeagent.engine.llama.quantization import Quantization, quantize
from edgeagent.worker.process_environment import worker_environment
from scripts.benchmarks import machine
from scripts.benchmarks.engine import MODEL
from tests.catalog.synthetic import Design, write_model
from tests.conftest import CACHE

ROOT = Path(__file__).resolve().parents[2]
TYPES = ("Q4_0", "Q8_0", "F16")
HALF_BILLION = Design("llama", 24, 896, 14, 2, 64, 4864, "Q4_0", n_vocab=151_936)
PROMPT = 128
N_STEPS = 60


@dataclass(frozen=True)
class Speed:
    """Of one model: what a token reads and computes, and the seconds of a token and of one of a prompt."""

    name: str
    n_layers: int
    n_bytes: int
    n_weights: int
    token_s: float
    prompt_token_s: float


def speed_of(path: Path, name: str, n_threads: int) -> Speed:
    reader = gguf.GGUFReader(str(path))
    names = {tensor.name for tensor in reader.tensors}
    # A table of embeddings is read by rows, unless it is the output as well.
    read = [
        t for t in reader.tensors if t.name != "token_embd.weight" or "output.weight" not in names
    ]
    command = [sys.executable, "-m", "scripts.benchmarks.decode_bounds", str(path), str(n_threads)]
    environment = os.environ | worker_environment(True)
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env=environment, cwd=ROOT
    )
    if done.returncode != 0:
        raise SystemExit(done.stderr[-2000:])
    times = json.loads(done.stdout.splitlines()[-1])
    return Speed(
        name,
        times["n_layers"],
        sum(int(tensor.n_bytes) for tensor in read),
        sum(int(tensor.n_elements) for tensor in read),
        times["token_s"],
        times["prompt_token_s"],
    )


def timed(path: str, n_threads: int) -> dict[str, Any]:
    """The times of a bare loop, in a process of its own."""
    from edgeagent.engine.llama.bindings import lib
    from edgeagent.engine.llama.model import Llama
    from edgeagent.types.engine_config import EngineConfig
    from edgeagent.worker import confinement
    from scripts.benchmarks.speed import step_s

    confinement.enter(read=[path])
    llama = Llama(EngineConfig(model_id="bench", path=path, n_ctx=512, n_threads=n_threads))
    llama.warm_up()

    prompts = []
    for _ in range(4):
        llama.trim(0, 0)
        prompts.append(step_s(llama, [20 + i % 400 for i in range(PROMPT)], 0))
    llama.trim(0, 16)
    steps = [step_s(llama, [30 + i], 16 + i) for i in range(N_STEPS)]
    n_layers = int(lib.llama_model_n_layer(llama._model))
    return {
        "token_s": statistics.median(steps),
        "prompt_token_s": min(prompts) / PROMPT,
        "n_layers": n_layers,
    }


def models(args: argparse.Namespace, folder: Path) -> list[tuple[Path, str]]:
    """Files and their names, the smallest first."""
    found = [] if args.stories is None else [(args.stories, "stories260K")]
    found += [
        (path, path.parent.name)
        for path in sorted((ROOT / "models").glob("edge-assistant-[sm]/*.gguf"))[::-1]
    ]
    chat = Library(args.models_dir).resolve(args.model).path
    found.append((chat, chat.stem))
    for kind in TYPES:
        path = folder / f"{args.model} {kind}.gguf"
        quantize(chat, path, Quantization(kind, n_threads=args.threads))
        found.append((path, path.stem))
    half = write_model(folder / "random 0.5B Q4_0.gguf", HALF_BILLION, chat)
    return [*found, (half, half.stem)]


def report(speeds: list[Speed], memory: float, gflops: float, n_threads: int) -> None:
    """`memory`: bytes/s; `gflops`: float32 products, both measured with `n_threads`."""
    layer_s = min(speed.token_s / speed.n_layers for speed in speeds)
    table = Table(
        "model", "MB a token", "tokens/s", "GB/s", "of memory", "GFLOP/s", "of float32", "ms a token",
        "memory", "arithmetic", "layers", "all three", "bound",
    )  # fmt: skip
    for speed in speeds:
        parts = {
            "memory": speed.n_bytes / memory,
            "arithmetic": speed.prompt_token_s,
            "layers": layer_s * speed.n_layers,
        }
        rate, operations = speed.n_bytes / speed.token_s, 2 * speed.n_weights / speed.token_s
        table.add_row(
            speed.name, f"{speed.n_bytes / 1e6:.1f}", f"{1 / speed.token_s:.0f}", f"{rate / 1e9:.1f}",
            f"{rate / memory:.0%}", f"{operations / 1e9:.1f}", f"{operations / 1e9 / gflops:.0%}",
            f"{1e3 * speed.token_s:.2f}", *(f"{1e3 * seconds:.2f}" for seconds in parts.values()),
            f"{sum(parts.values()) / speed.token_s:.0%}", max(parts, key=lambda name: parts[name]),
        )  # fmt: skip
    print(f"{n_threads} threads: {memory / 1e9:.1f} GB/s, {gflops:.0f} GFLOP/s in float32")
    Console(width=150).print(table)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="scripts/bench bounds",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--models-dir", type=Path, default=CACHE)
    parser.add_argument("--model", default=MODEL)
    parser.add_argument("--stories", type=Path, metavar="GGUF")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--made", type=Path, metavar="DIR", help="leave the files made here")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if args.made is not None:
            args.made.mkdir(parents=True, exist_ok=True)
        files = models(args, args.made or Path(folder))
        os.sync()
        quiet = machine.Quiet()
        rates = measure(probe(), limit_s=6.0)
        memory = {rate.n_threads: rate.value for rate in rates.memory_gb_per_s}
        gflops = {rate.n_threads: rate.value for rate in rates.gemm_gflop_per_s}
        if args.threads not in memory or args.threads not in gflops:
            raise SystemExit(f"No rates with {args.threads} threads: {'; '.join(rates.notes)}")
        speeds = [speed_of(path, name, args.threads) for path, name in files]
        print(f"{machine.describe()}, others {quiet.others():.0%}")
    report(speeds, memory[args.threads] * 1e9, gflops[args.threads], args.threads)


if __name__ == "__main__":
    print(json.dumps(timed(sys.argv[1], int(sys.argv[2]))))
