"""`scripts/bench cells`: what cells of other sequences cost in the KV cache, and what moving them costs.

A bare llama.cpp loop with idle prefixes behind the cells in use. Attention reads the masks of all cells up to
the last one that is used, for every token of every sequence; `engine/batching/prefix_parking.py` moves idle
prefixes out once they have cost as much as that.
"""

from __future__ import annotations

import argparse
import statistics
import time
from array import array
from collections.abc import Callable
from pathlib import Path

from rich.console import Console
from rich.table import Table

from edgeagent.catalog.model_library import Library
from edgeagent.engine.llama import kv_cells
from edgeagent.engine.llama.model import Llama
from edgeagent.types.engine_config import EngineConfig
from scripts.benchmarks import machine
from scripts.benchmarks.engine import MODEL
from tests.conftest import CACHE

N_SEQ = 8
DEPTH = 100  # tokens of each sequence that generates
PIECE = 512  # cells of an idle prefix


class Loop:
    """A model, and steps of sequences that begin at DEPTH."""

    def __init__(self, model: Path, n_threads: int) -> None:
        config = EngineConfig(model_id=MODEL, path=str(model), n_ctx=16384, n_threads=n_threads)
        self.llama = Llama(config)
        self._tokens = [(7919 * i + 13) % self.llama.n_vocab for i in range(4096)]
        self.run([(N_SEQ + 1, PIECE, 0)])
        started = time.perf_counter()
        self.idle = kv_cells.lift(self.llama, N_SEQ + 1, 0, PIECE)
        self.lift_s = time.perf_counter() - started
        self.llama.trim(N_SEQ + 1, 0)
        for seq_id in range(N_SEQ):
            self.run([(seq_id, DEPTH, 0)])

    def run(self, rows: list[tuple[int, int, int]]) -> float:
        """The seconds of a step: (sequence, number of tokens, first position) of each row."""
        batch = self.llama.batch
        batch.clear()
        for seq_id, n, first in rows:
            batch.add(seq_id, array("i", self._tokens[first : first + n]), first, n_outputs=1)
        started = time.perf_counter()
        self.llama.decode()
        return time.perf_counter() - started

    def decode(self, n: int) -> float:
        took_s = self.run([(seq_id, 1, DEPTH) for seq_id in range(n)])
        for seq_id in range(n):
            self.llama.trim(seq_id, DEPTH)
        return took_s

    def prompt(self, n: int) -> float:
        took_s = self.run([(N_SEQ, n, 0)])
        self.llama.trim(N_SEQ, 0)
        return took_s

    def put_idle(self, n_cells: int) -> float:
        """Fill so many cells; the seconds that it took."""
        started = time.perf_counter()
        for i in range(n_cells // PIECE):
            assert kv_cells.place(self.llama, N_SEQ + 1 + i, 0, PIECE, self.idle)
        return time.perf_counter() - started

    def drop_idle(self, n_cells: int) -> None:
        for i in range(n_cells // PIECE):
            self.llama.trim(N_SEQ + 1 + i, 0)


def main() -> None:
    parser = argparse.ArgumentParser(prog="scripts/bench cells", description=__doc__)
    parser.add_argument("--models-dir", type=Path, default=CACHE)
    parser.add_argument("--model", default=MODEL)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=2)
    args = parser.parse_args()
    machine.become_worker("cells")
    loop = Loop(Library(args.models_dir).resolve(args.model).path, args.threads)
    steps: dict[str, Callable[[], float]] = {
        f"{n} decoding": lambda n=n: loop.decode(n) for n in (1, 2, 8)
    } | {f"{n} of a prompt": lambda n=n: loop.prompt(n) for n in (16, 63, 64)}
    quiet = machine.Quiet()
    numbers = (0, 2048, 4096, 8192)
    times: dict[tuple[str, int], list[float]] = {}
    put_s = []
    for _ in range(args.rounds):
        for n_idle in numbers:
            took_s = loop.put_idle(n_idle)
            put_s += [took_s / n_idle] if n_idle else []
            for name, step in steps.items():
                times.setdefault((name, n_idle), []).extend(step() for _ in range(5))
            loop.drop_idle(n_idle)
    table = Table("ms of a step, idle cells:", *map(str, numbers))
    for name in steps:
        row = [f"{1e3 * statistics.median(times[name, n]):.1f}" for n in numbers]
        table.add_row(name, *row)
    print(f"{machine.describe()}, {args.threads} threads, others {quiet.others():.0%}")
    Console(width=100).print(table)
    moved = f"{1e6 * loop.lift_s / PIECE:.1f} and {1e6 * statistics.median(put_s):.1f}"
    print(f"reading a cell and putting it back: {moved} us")
