"""`scripts/bench encoders`: what a chunk of a document costs an embedding model, by who computes it.

Each way runs in a process of its own, confined as a worker, on chunks of Python's documentation, which
`scripts/bench knowledge` fetches. Rates of processor time hold on a machine that is not quiet, too.
Operations are those of the matrices, two for each weight and token.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from array import array
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from edgeagent.catalog.gguf.header import read_header
from edgeagent.catalog.model_library import Library
from edgeagent.engine.embedding.embedder import MAX_STEP_TOKENS, plan_texts
from edgeagent.engine.embedding.encoder import Encoder
from edgeagent.engine.embedding.int8_encoder import make_encoder
from edgeagent.knowledge.document import ChunkSizes, ParserLimits
from edgeagent.knowledge.parsing import parse
from edgeagent.types.engine_config import EngineConfig
from edgeagent.worker import confinement
from edgeagent.worker.process_environment import worker_environment
from scripts.benchmarks import machine
from scripts.benchmarks.knowledge import others, unpacked

MODEL = "all-minilm-l6-v2"
WAYS = (None, "default", "avx512")  # EngineConfig.int8_kernels
QUERY_TOKENS = 12


def chunks(root: Path, n: int) -> list[str]:
    found: list[str] = []
    for name, data in others(root):
        found += [chunk.text for chunk in parse(name, data, ChunkSizes(), ParserLimits())]
        if len(found) >= n:
            break
    return found[:n]


def encode(encoder: Encoder, texts: list[array[int]]) -> np.ndarray[Any, Any]:
    """As the embedder computes one request."""
    order = list(range(len(texts)))
    if encoder.n_parallel > 1:
        order.sort(key=lambda i: -len(texts[i]))
    vectors = np.empty((len(texts), encoder.width), np.float32)
    while order:
        lengths = [len(texts[i]) for i in order[: encoder.n_texts]]
        (n,) = plan_texts([lengths], MAX_STEP_TOKENS, encoder.n_texts, encoder.n_parallel)
        vectors[order[:n]] = encoder.encode([texts[i] for i in order[:n]])
        order = order[n:]
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def one_way(path: str, way: str | None, n_threads: int) -> None:
    """A line of JSON about the texts in stdin, then the vectors."""
    confinement.enter(read=[path], asks_mappings=True)
    encoder = make_encoder(
        EngineConfig(
            model_id=MODEL, path=path, task="embed", n_ctx=512, n_seq=64, n_prefixes=0,
            n_threads=n_threads, int8_kernels=way,  # type: ignore[arg-type]
        )
    )  # fmt: skip
    encoder.warm_up()
    texts = [
        encoder.tokens_of(text, add_special=True, parse_special=False)
        for text in json.load(sys.stdin)
    ]
    encode(encoder, texts[:4])
    wall_s, cpu_s = time.perf_counter(), time.process_time()
    vectors = encode(encoder, texts)
    wall_s, cpu_s = time.perf_counter() - wall_s, time.process_time() - cpu_s
    query = texts[0][:QUERY_TOKENS]
    times = []
    for _ in range(50):
        started = time.perf_counter()
        encoder.encode([query])
        times.append(1e3 * (time.perf_counter() - started))
    found = {
        "n_tokens": sum(map(len, texts)), "wall_s": wall_s, "cpu_s": cpu_s,
        "query_ms": statistics.median(times),
        "shape": vectors.shape,
    }  # fmt: skip
    sys.stdout.buffer.write(json.dumps(found).encode() + b"\n" + vectors.tobytes())
    sys.stdout.flush()
    encoder.close()


def measured(path: Path, way: str | None, n_threads: int, texts: list[str]) -> dict[str, Any]:
    command = [sys.executable, "-m", "scripts.benchmarks", "encoders", "--path", str(path)]
    done = subprocess.run(
        [*command, "--threads", str(n_threads), "--way", way or "float"],
        input=json.dumps(texts).encode(), capture_output=True, check=False,
        env=worker_environment(True, PYTHONPATH="."),
    )  # fmt: skip
    if done.returncode != 0:
        raise SystemExit(done.stderr.decode()[-2000:])
    line, _, data = done.stdout.partition(b"\n")
    found: dict[str, Any] = json.loads(line)
    return found | {"vectors": np.frombuffer(data, np.float32).reshape(found["shape"])}


def n_multiplied(path: Path) -> int:
    """The weights that each token is multiplied with."""
    return sum(t.n_elements for t in read_header(path).tensors
               if t.name.startswith("blk.") and len(t.shape) == 2)  # fmt: skip


def report(args: argparse.Namespace) -> None:
    path = args.path or Library(args.models_dir).resolve(MODEL).path
    texts, weights = chunks(unpacked(args.cache), args.chunks), n_multiplied(path)
    table = Table("computed by", "chunks/s of a core", f"chunks/s on {args.threads} threads", "a question",
                  "GOPS of a core", "cosine, least", title=machine.describe())  # fmt: skip
    reference: Any = None
    for way in WAYS:
        one = measured(path, way, 1, texts)
        all_ = measured(path, way, args.threads, texts)
        reference = one["vectors"] if reference is None else reference
        cosines = (reference * all_["vectors"]).sum(axis=1)
        table.add_row(
            "llama.cpp" if way is None else f"8-bit integers, {way}",
            f"{len(texts) / one['cpu_s']:.1f}", f"{len(texts) / all_['wall_s']:.1f}",
            f"{all_['query_ms']:.1f} ms", f"{2e-9 * weights * one['n_tokens'] / one['cpu_s']:.0f}",
            f"{cosines.mean():.4f}, {cosines.min():.4f}",
        )  # fmt: skip
    n_tokens = one["n_tokens"] / len(texts)
    Console(width=140).print(f"{path.name}, {len(texts)} chunks of {n_tokens:.0f} tokens", table)


def main() -> None:
    parser = argparse.ArgumentParser(prog="scripts/bench encoders", description=__doc__)
    parser.add_argument("--models-dir", type=Path, default=Path(".cache/models"))
    parser.add_argument("--path", type=Path, help="a GGUF file in place of all-MiniLM-L6-v2")
    parser.add_argument("--cache", type=Path, default=Path(".cache/knowledge"))
    parser.add_argument("--chunks", type=int, default=96)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--way", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.way is not None:
        one_way(str(args.path), None if args.way == "float" else args.way, args.threads)
        return
    report(args)
