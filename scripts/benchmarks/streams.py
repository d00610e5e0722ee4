"""`scripts/bench streams`: a step of running answers in the cache of all, and in streams of their own.

Answers of `--depths` tokens each, through the engine's own runner, the same steps both ways, in turn. "begin"
is what the first step takes longer, with the copy of cells; "settle" is the way back of the cells of
`--steps` tokens of each answer.
"""

from __future__ import annotations

import argparse
import statistics
import time
from array import array
from collections import defaultdict
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

N_ANSWERS = 8
MANY = 1 << 20  # cells in use, as the runner is told, so that streams are worth it


class Answers:
    """A model with `N_ANSWERS` answers that run."""

    def __init__(self, model: Path, n_threads: int) -> None:
        config = EngineConfig(
            model_id=MODEL, path=str(model), n_ctx=16384, n_seq=N_ANSWERS + 1, n_threads=n_threads,
            n_prefixes=0, answer_cells=1024,
        )  # fmt: skip
        self._llama = Llama(config)
        self._runner = LlamaRunner(self._llama, config)
        self._tokens = [(7919 * i + 13) % self._llama.n_vocab for i in range(1024)]

    def _row(self, seq_id: int, n: int, first: int) -> Row:
        return Row(seq_id, array("i", self._tokens[first : first + n]), first, 1)

    def fill(self, depth: int) -> None:
        """Give each answer so many tokens."""
        for seq_id in range(N_ANSWERS):
            self._runner.trim(seq_id, 0)
            for first in range(0, depth, 256):
                self._runner.run([self._row(seq_id, min(256, depth - first), first)])

    def steps(self, n: int, depth: int, n_steps: int, n_used: int) -> tuple[list[float], float]:
        """Seconds of steps of n answers, and of settling them; they have `depth` tokens again then."""
        took = []
        for step in range(n_steps):
            rows = [self._row(seq_id, 1, depth + step) for seq_id in range(n)]
            started = time.perf_counter()
            self._runner.run(rows, n_used)
            took.append(time.perf_counter() - started)
        started = time.perf_counter()
        for seq_id in range(n):
            self._runner.settle(seq_id)
        settled_s = time.perf_counter() - started
        for seq_id in range(n):
            self._runner.trim(seq_id, depth)
        return took, settled_s


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="scripts/bench streams",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--models-dir", type=Path, default=CACHE)
    parser.add_argument("--model", default=MODEL)
    parser.add_argument("--depths", type=int, nargs="+", default=[100, 350, 700])
    parser.add_argument("--answers", type=int, nargs="+", default=[2, 4, 8])
    parser.add_argument("--steps", type=int, default=12, help="steps of each kind in a round")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    if max(args.answers) > N_ANSWERS or max(args.depths) + args.steps > 960:
        parser.error(f"at most {N_ANSWERS} answers, and 960 tokens with those of the steps")
    machine.become_worker("streams")
    work = Answers(Library(args.models_dir).resolve(args.model).path, args.threads)
    quiet = machine.Quiet()
    table = Table(
        "tokens", "answers", "together, ms", "apart, ms", "ratio", "begin, ms", "settle, ms"
    )
    for depth in args.depths:
        work.fill(depth)
        for n in args.answers:
            times = defaultdict(list)
            for _ in range(args.rounds + 1):  # the first is not counted
                together, _ = work.steps(n, depth, args.steps, 0)
                apart, settled_s = work.steps(n, depth, args.steps, MANY)
                times["together"].append(statistics.median(together))
                times["apart"].append(statistics.median(apart[1:]))
                times["begin"].append(apart[0] - statistics.median(apart[1:]))
                times["settle"].append(settled_s)
            found = {name: 1e3 * statistics.median(some[1:]) for name, some in times.items()}
            ratio = found["apart"] / found["together"]
            table.add_row(
                str(depth), str(n), f"{found['together']:.1f}", f"{found['apart']:.1f}",
                f"{ratio:.2f}", f"{found['begin']:.1f}", f"{found['settle']:.1f}",
            )  # fmt: skip
    print(f"{machine.describe()}, others {quiet.others():.0%}")
    Console(width=100).print(table)
