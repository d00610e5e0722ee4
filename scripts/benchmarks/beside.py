"""`scripts/bench beside`: two threads that compute together, and two that compute alone, each its own part.

Answers of `--depth` tokens and prompts of `--chunk` tokens, through the engine's own runner; the same work
both ways, in turn. Figures are milliseconds: of a token of two prompts, one after the other or at once; and
of a prompt and the steps of answers that were taken while it was computed, one after the other or at once.
`engine/llama/prompt_thread.py` says why they differ.
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
from edgeagent.engine.batching.step_runner import LlamaRunner, Row
from edgeagent.engine.llama.model import Llama
from edgeagent.types.engine_config import EngineConfig
from scripts.benchmarks import machine
from scripts.benchmarks.engine import MODEL
from tests.conftest import CACHE

N_THREADS = 2
N_ANSWERS = 8


class Work:
    """A model with answers that run, in ids from 0 on, and two ids more for prompts."""

    def __init__(self, model: Path, depth: int, chunk: int) -> None:
        config = EngineConfig(
            model_id=MODEL, path=str(model), n_ctx=16384, n_seq=N_ANSWERS + 2, n_threads=N_THREADS,
            prompt_cells=2048, n_prefixes=0,
        )  # fmt: skip
        self._llama = Llama(config)
        self._runner = LlamaRunner(self._llama, config)
        self._depth, self._chunk = depth, chunk
        self._tokens = [(7919 * i + 13) % self._llama.n_vocab for i in range(8192)]
        self._prompts = [self._row(N_ANSWERS + i, chunk, 0) for i in range(2)]
        for seq_id in range(N_ANSWERS):
            for first in range(0, depth, 256):
                self._runner.run([self._row(seq_id, min(256, depth - first), first)])

    def _row(self, seq_id: int, n: int, first: int) -> Row:
        return Row(seq_id, array("i", self._tokens[first : first + n]), first, 1)

    def _answers(self, n: int) -> list[Row]:
        return [self._row(seq_id, 1, self._depth) for seq_id in range(n)]

    def _undo(self, rows: list[Row]) -> None:
        for row in rows:
            self._runner.trim(row.seq_id, row.first_pos)

    def together(self, n: int) -> float:
        """Seconds of a step of n answers with all threads."""
        self._runner.set_threads(N_THREADS)
        return self._timed(lambda: self._runner.run(self._answers(n)), self._answers(n))

    def in_turn(self, _: int) -> float:
        """Seconds of a token of two prompts, each computed by all threads."""
        self._runner.set_threads(N_THREADS)
        both = [
            self._timed(lambda row=row: self._runner.run([row], 1 << 20), [row])  # type: ignore[misc]
            for row in self._prompts
        ]
        return sum(both) / (2 * self._chunk)

    def at_once(self, _: int) -> float:
        def run() -> None:
            for thread, row in zip(self._runner.prompt_threads, self._prompts, strict=True):
                assert thread.start(row)
            for thread in self._runner.prompt_threads:
                assert thread.fetch() is not None

        return self._timed(run, self._prompts) / (2 * self._chunk)

    def amid(self, n: int) -> tuple[float, float]:
        """Seconds for a chunk of a prompt and the steps of n answers that were taken while it was computed:
        in turn, and at once."""
        thread = self._runner.prompt_threads[0]
        self._runner.set_threads(1)
        n_steps = 0
        started = time.perf_counter()
        assert thread.start(self._prompts[0])
        while not thread.has_ended:
            self._runner.run(self._answers(n))
            self._undo(self._answers(n))
            n_steps += 1
        assert thread.fetch() is not None
        at_once_s = time.perf_counter() - started
        self._undo(self._prompts[:1])
        self._runner.set_threads(N_THREADS)
        in_turn_s = self._timed(
            lambda: self._runner.run(self._prompts[:1], 1 << 20), self._prompts[:1]
        )
        return in_turn_s + sum(self.together(n) for _ in range(n_steps)), at_once_s

    def _timed(self, run: Callable[[], object], rows: list[Row]) -> float:
        started = time.perf_counter()
        assert run() is not None or len(rows) == 2
        took_s = time.perf_counter() - started
        self._undo(rows)
        return took_s


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="scripts/bench beside",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--models-dir", type=Path, default=CACHE)
    parser.add_argument("--model", default=MODEL)
    parser.add_argument("--depth", type=int, default=150, help="tokens of each running answer")
    parser.add_argument("--chunk", type=int, default=128, help="tokens of a prompt")
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    machine.become_worker("beside")
    work = Work(Library(args.models_dir).resolve(args.model).path, args.depth, args.chunk)
    quiet = machine.Quiet()
    times: dict[str, list[tuple[float, float]]] = {}
    for _ in range(args.rounds + 1):  # the first is not counted
        pair = work.in_turn(0), work.at_once(0)
        times.setdefault(f"two prompts of {args.chunk} tokens, a token", []).append(pair)
        for n in (1, 7):
            name = f"{args.chunk} tokens of a prompt and steps of {n} answers"
            times.setdefault(name, []).append(work.amid(n))
    table = Table(f"answers of {args.depth} tokens", "together, ms", "alone, ms", "ratio")
    for name, pairs in times.items():
        together, alone = (statistics.median(pair[way] for pair in pairs[1:]) for way in (0, 1))
        table.add_row(
            name, f"{1e3 * together:.1f}", f"{1e3 * alone:.1f}", f"{alone / together:.2f}"
        )
    print(f"{machine.describe()}, others {quiet.others():.0%}")
    Console(width=100).print(table)
