"""`scripts/bench apart`: prompts beside running answers, in the cache of all and in a context of their own.

Seven sequences of `--depth` tokens run, through the engine's own runner. The same steps are computed both
ways, in turn; `engine/llama/prompt_context.py` says why they differ.
"""

from __future__ import annotations

import argparse
import statistics
import time
from array import array
from pathlib import Path

from rich.console import Console
from rich.table import Table

from edgeagent.catalog.model_library import Library
from edgeagent.engine.batching.step_runner import LlamaRunner, Row
from edgeagent.engine.llama.model import Llama
from edgeagent.types.engine_config import EngineConfig
from scripts.benchmarks import machine
from scripts.benchmarks.engine import MODEL
from tests.conftest import CACHE

N_OTHERS = 7


class Loop:
    """A model with sequences that run, and steps in which one more begins or goes on."""

    def __init__(self, model: Path, n_threads: int, depth: int) -> None:
        config = EngineConfig(
            model_id=MODEL, path=str(model), n_ctx=16384, n_threads=n_threads, prompt_cells=2048
        )
        self._llama = Llama(config)
        self._runner = LlamaRunner(self._llama, config)
        self._runner.set_threads(n_threads)
        self._depth = depth
        self._tokens = [(7919 * i + 13) % self._llama.n_vocab for i in range(8192)]
        for seq_id in range(N_OTHERS):
            for first in range(0, depth, 256):
                self._runner.run([self._row(seq_id, min(256, depth - first), first)])

    def _row(self, seq_id: int, n: int, first: int) -> Row:
        return Row(seq_id, array("i", self._tokens[first : first + n]), first, 1)

    def rows(self, n: int, *, is_turn: bool, is_beside: bool) -> list[Row]:
        """n tokens of a new prompt, or of the next turn of a sequence, alone or in a step of all others."""
        own = N_OTHERS - 1 if is_turn else N_OTHERS
        others = [self._row(i, 1, self._depth) for i in range(N_OTHERS) if i != own and is_beside]
        return [*others, self._row(own, n, self._depth if is_turn else 0)]

    def run(self, rows: list[Row], *, is_apart: bool) -> float:
        """Seconds of a step, which is undone afterwards."""
        started = time.perf_counter()
        self._runner.run(rows, N_OTHERS * self._depth if is_apart else 0)
        took_s = time.perf_counter() - started
        for row in rows:
            self._runner.trim(row.seq_id, row.first_pos)
        return took_s


def main() -> None:
    parser = argparse.ArgumentParser(prog="scripts/bench apart", description=__doc__)
    parser.add_argument("--models-dir", type=Path, default=CACHE)
    parser.add_argument("--model", default=MODEL)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--depth", type=int, default=500, help="tokens of each running answer")
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    machine.become_worker("apart")
    loop = Loop(Library(args.models_dir).resolve(args.model).path, args.threads, args.depth)
    steps = {
        f"{n} tokens of a {'turn' if is_turn else 'prompt'}{', 7 decoding' if is_beside else ''}": (
            loop.rows(n, is_turn=is_turn, is_beside=is_beside)
        )
        for is_turn, is_beside, sizes in (
            (False, False, (32, 64, 256)),
            (True, False, (40, 256)),
            (False, True, (40, 64, 128)),
        )
        for n in sizes
    }
    quiet = machine.Quiet()
    times: dict[tuple[str, bool], list[float]] = {}
    for i in range(args.rounds + 1):  # the first is not counted
        for name, rows in steps.items():
            for is_apart in (False, True) if i % 2 else (True, False):
                took_s = loop.run(rows, is_apart=is_apart)
                if i:
                    times.setdefault((name, is_apart), []).append(took_s)
    table = Table(f"7 answers of {args.depth} tokens run", "together, ms", "apart, ms", "ratio")
    for name in steps:
        together, apart = (statistics.median(times[name, way]) for way in (False, True))
        table.add_row(
            name, f"{1e3 * together:.0f}", f"{1e3 * apart:.0f}", f"{apart / together:.2f}"
        )
    print(f"{machine.describe()}, {args.threads} threads, others {quiet.others():.0%}")
    Console(width=100).print(table)
