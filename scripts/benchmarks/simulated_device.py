"""A device on which steps take as long as a cost curve says: a runner without weights, and its clock.

Threads share the cores evenly. A step has one job on each of its threads, a chunk of a prompt beside it one
more; where there are more jobs than cores, each has its part of them.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from typing import Any

import numpy as np

from edgeagent.engine.batching.chunk_choice import load_of
from edgeagent.engine.batching.kv_cache import CellRun
from edgeagent.engine.batching.step_cost import StepCost
from edgeagent.engine.llama.batch import Row
from edgeagent.engine.llama.sampler_chain import Candidates
from edgeagent.types.engine_config import EngineConfig
from edgeagent.types.step_costs import StepCosts

N_VOCAB = 8
# What the engine and the daemon do for each step, and for each of its answers.
STEP_S = 0.0003
ANSWER_S = 0.0002
# Moving a cell from a context for prompts to the main cache.
MOVE_S = 6e-6


class Machine:
    """The clock, and the chunks beside the steps: seconds of a core that they still need."""

    def __init__(self, n_cores: int) -> None:
        self.now_s = 0.0
        self._n_cores = n_cores
        self._left: dict[object, float] = {}

    def clock(self) -> float:
        return self.now_s

    def begin(self, thread: object, seconds: float) -> None:
        self._left[thread] = seconds

    def end(self, thread: object) -> None:
        self._left.pop(thread, None)

    def is_running(self, thread: object) -> bool:
        return self._left.get(thread, 0.0) > 0

    def compute(self, seconds: float, n_threads: int) -> None:
        """A step that takes so long where it has a core for each of its threads."""
        while seconds > 0:
            rate = self._rate(n_threads)
            seconds -= rate * self._pass(seconds / rate, rate)

    def wait(self, limit_s: float) -> None:
        """Until a chunk ends."""
        self._pass(limit_s, self._rate(0))

    def _rate(self, n_threads: int) -> float:
        """The part of a core that each thread has."""
        n = n_threads + sum(map(self.is_running, self._left))
        return min(1.0, self._n_cores / max(1, n))

    def _pass(self, limit_s: float, rate: float) -> float:
        """Let time pass until a chunk ends. Returns how long that was."""
        running = [thread for thread in self._left if self.is_running(thread)]
        passed_s = min([limit_s, *(self._left[thread] / rate for thread in running)])
        for thread in running:
            self._left[thread] = max(0.0, self._left[thread] - rate * passed_s)
            if self._left[thread] < 1e-9:
                self._left[thread] = 0.0
        self.now_s += passed_s
        return passed_s


class Ended:
    """Stands for the event that is set when a chunk has ended."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine

    def wait(self, limit_s: float) -> None:
        self._machine.wait(limit_s)

    def clear(self) -> None:
        pass


class SimulatedThread:
    """A `PromptThread` that computes nothing."""

    def __init__(self, runner: SimulatedRunner, n_cells: int) -> None:
        self._runner = runner
        self._machine = runner.machine
        self._n_cells = n_cells
        self._row: Row | None = None
        self._held: dict[int, int] = {}
        self.n_tokens = 0
        self._begun_s = self.took_s = 0.0

    @property
    def is_busy(self) -> bool:
        return self._row is not None

    @property
    def has_ended(self) -> bool:
        return self.is_busy and not self._machine.is_running(self)

    def holds(self, row: Row) -> bool:
        return row.first_pos > 0 and self._held.get(row.seq_id) == row.first_pos

    def start(self, row: Row, n_least: int = 0) -> bool:
        if row.n_outputs > 1 or row.last_pos > self._n_cells:
            return False
        n_moved = len(row.tokens) + (0 if self.holds(row) else row.first_pos)
        load = load_of(0, [row])
        self.n_tokens = max(load.n_prefill, n_least)
        load = load._replace(n_threads=1, n_prefill=self.n_tokens)
        self._row, self._begun_s = row, self._machine.now_s
        self._machine.begin(self, self._runner.cost.predict(load) + MOVE_S * n_moved)
        return True

    def fetch(self) -> np.ndarray[Any, Any] | None:
        row = self._row
        assert row is not None
        self.took_s = self._machine.now_s - self._begun_s
        self._held = {row.seq_id: row.last_pos}
        self.drop()
        return self._runner.logits(row.n_outputs)

    def drop(self) -> None:
        self._machine.end(self)
        self._row = None


class SimulatedRunner:
    """A `Runner` whose tokens are all the same. Seconds are those of `costs`."""

    def __init__(self, config: EngineConfig, costs: StepCosts) -> None:
        self.machine = Machine(max(1, costs.n_threads))
        self.can_part = config.n_prompt_cells > 0
        self.is_beside = config.n_prompt_threads > 0
        self.cost = StepCost(costs, can_part=self.can_part)
        self.n_vocab = N_VOCAB
        self.n_heads = costs.n_heads
        self.max_outputs = config.n_batch
        self.end_tokens = frozenset({0})
        self.can_trim = True
        self.candidates = Candidates(N_VOCAB)
        self.n_movable = config.n_ctx
        self.cell_bytes = 4
        self.prompt_threads = [
            SimulatedThread(self, config.n_prompt_cells) for _ in range(config.n_prompt_threads)
        ]
        self.prompt_ended = Ended(self.machine)
        self.n_walking = 0
        self._has_streams = config.n_answer_cells > 0
        self._n_threads = config.n_threads

    def logits(self, n_outputs: int) -> np.ndarray[Any, Any]:
        found = np.zeros((n_outputs, N_VOCAB), np.float32)
        found[:, 1] = 1.0
        return found

    def run(self, rows: Sequence[Row], n_used: int = 0) -> np.ndarray[Any, Any]:
        n_decode = sum(len(row.tokens) == 1 for row in rows)
        ordered = sorted(rows, key=lambda row: len(row.tokens) > 1)
        is_walking = n_decode < len(rows) or not self._has_streams
        self.n_walking = load_of(n_decode, ordered).n_tokens if is_walking else 0
        load = load_of(n_decode, ordered)._replace(
            n_used=n_used if is_walking else 0, n_threads=self._n_threads
        )
        seconds = self.cost.predict(load) + STEP_S + ANSWER_S * n_decode
        self.machine.compute(seconds, self._n_threads)
        return self.logits(sum(row.n_outputs for row in rows))

    def set_threads(self, n_threads: int) -> None:
        self._n_threads = n_threads

    def piece(self, token: int) -> bytes:
        return b"x"

    def name(self, token: int) -> str:
        return "x"

    def lift(self, seq_id: int, first: int, last: int) -> bytes:
        return bytes(self.cell_bytes * (last - first))

    def place(self, seq_id: int, first: int, last: int, data: bytes | memoryview) -> bool:
        return True

    def begin_apart(self) -> None: ...

    def rest(self) -> None: ...

    def copy(self, src: int, dst: int, n: int) -> None: ...

    def trim(self, seq_id: int, n: int) -> None: ...

    def settle(self, seq_id: int) -> None: ...

    def pack(self, runs: list[CellRun]) -> None: ...

    def wait_briefly(self, is_contended: bool) -> None: ...

    def use_adapter(self, adapter: str | None) -> None: ...

    def arm(self) -> None: ...

    def abort(self) -> None: ...


def answer_tokens(n: int) -> array[int]:
    """What the runner generates."""
    return array("i", [1] * n)
