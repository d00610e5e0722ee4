"""Measures what steps of a model cost on this device, with the engine's own context while it is idle.

One step at a time, so that a request waits for no more than one; its arrival aborts that one. The sizes that
decide most come first: when the time is up, the result has those that were measured.
"""

from __future__ import annotations

import math
import statistics
import time
from array import array
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

from edgeagent.engine.batching.attention_tiles import n_tile_rows
from edgeagent.engine.batching.kv_cache import KVCache, Match
from edgeagent.engine.batching.step_runner import Row, Runner, StepAborted
from edgeagent.errors import EngineFailed
from edgeagent.types.step_costs import MOST_WITH_LOGITS, TILE, StepCosts

# Numbers of tokens, the most useful first. Up to MOST_WITH_LOGITS each token has logits, as in decode steps.
SIZES = (8, 1, TILE, 16, TILE - 1, 4, 2, 128, 32, 256, 48, 96, 192, 384, 512)
# The same with one thread, as steps have beside prompts on threads of their own, and those prompts.
ALONE_SIZES = (1, 8, 2 * TILE, 4, TILE, 2, 16)
N_TIMES = 3
# A prompt of this many tokens in chunks of TILE, and steps below a tile behind it, show what the cells cost.
# These are as large as such steps can be, because that differs most: behind 1,024 cells a step of 8 tokens
# takes 1.6 times as long, and one of 63 twice as long (SmolLM2-135M, one thread of a Zen 4).
DEPTH = 10 * TILE
BELOW_TILE = TILE - 1
LIMIT_S = 20.0
# Where the times of a size differ by more than this, at half of the sizes, other programs used the cores,
# which the governor has not seen yet: a curve of such times would be kept for good.
DISTURBED = 2.0
NEEDED = {1, 8, 16, BELOW_TILE, TILE}


class Size(NamedTuple):
    """Of a step that is measured."""

    n_tokens: int
    n_threads: int


@dataclass
class StepProbe:
    """One measurement. Engine thread only; `is_running` may be read by any."""

    kv: KVCache
    runner: Runner
    n_batch: int
    longest_s: float  # steps that take longer are of no use to the scheduler
    clock: Callable[[], float] = time.perf_counter
    n_threads: int = 1
    is_running: bool = False
    _times: dict[Size, list[float]] = field(default_factory=dict)
    _deep: list[tuple[int, float]] = field(
        default_factory=list
    )  # chunks of TILE behind so many cells
    _deep_below: list[float] = field(default_factory=list)  # steps of BELOW_TILE behind DEPTH cells
    _spent_s: float = 0.0
    _todo: list[Size] = field(default_factory=list)
    _seq_id: int | None = None  # of the long prompt, while it is in the cache

    def __post_init__(self) -> None:
        self.begin_anew()

    def begin_anew(self) -> None:
        """Forget what was measured."""
        self._times, self._deep, self._deep_below, self._spent_s = {}, [], [], 0.0
        sizes = [Size(n, self.n_threads) for n in SIZES]
        if self.n_threads > 1:
            sizes += [Size(n, 1) for n in ALONE_SIZES]
        self._todo = [size for size in sizes if size.n_tokens <= self.n_batch] * N_TIMES

    @property
    def is_over(self) -> bool:
        return self._spent_s > LIMIT_S or not (self._todo or self._is_depth_left)

    @property
    def _is_depth_left(self) -> bool:
        return self.n_batch >= TILE and len(self._deep_below) < N_TIMES

    @property
    def is_begun(self) -> bool:
        """Whether the long prompt is in the cache, which the next steps continue."""
        return self._seq_id is not None

    def can_run(self) -> bool:
        """Whether there are cells and an id, so that nothing cached has to go."""
        return self.kv.has_free_id and self.kv.n_free >= self.n_batch + DEPTH

    def step(self) -> None:
        """Measure one step more. An aborted one is measured again."""
        begun = self.clock()
        self.is_running = True
        self.runner.arm()
        try:
            self.runner.use_adapter(None)  # the last request may have had one, which costs time
            if self._todo:
                self._measure_size(self._todo[0])
                self._todo.pop(0)
            else:
                self._measure_depth()
        except StepAborted:
            self.close()
        except EngineFailed:  # requests will be told of it
            self.close()
            self._spent_s = math.inf
        finally:
            self.is_running = False
            self._spent_s += self.clock() - begun
        if self.is_over:
            self.close()

    def close(self) -> None:
        """Leave nothing in the cache. The long prompt begins anew, if it is not complete."""
        if self._seq_id is not None:
            self.runner.trim(self._seq_id, 0)
            self.kv.release(self._seq_id)
            self._seq_id = None

    def result(self) -> StepCosts | None:
        """The least of each size, and how the costs rose with depth; None where too little was measured,
        or beside other programs."""
        step_s, alone_s = self._least(self.n_threads), self._least(1)
        if not step_s.keys() >= {n for n in NEEDED if n <= self.n_batch} or self.was_disturbed:
            return None
        n_heads = self.runner.n_heads
        tiled_cell_s = cell_s = 0.0
        if len(self._deep) > 2:
            depths, times = zip(*self._deep, strict=True)
            slope = statistics.linear_regression(depths, times).slope
            tiled_cell_s = max(0.0, slope) / n_tile_rows(TILE, n_heads, self.n_threads)
        if self._deep_below:
            added_s = min(self._deep_below) - step_s[BELOW_TILE]
            cell_s = max(0.0, added_s) / (BELOW_TILE * DEPTH)
        return StepCosts(
            step_s=step_s,
            alone_s=alone_s if self.n_threads > 1 else {},
            cell_s=cell_s,
            tiled_cell_s=tiled_cell_s,
            n_threads=self.n_threads,
            n_heads=n_heads,
        )

    @property
    def was_disturbed(self) -> bool:
        """Whether other programs used the cores meanwhile."""
        spreads = [statistics.median(times) / min(times) for times in self._times.values()]
        return bool(spreads) and statistics.median(spreads) > DISTURBED

    def _least(self, n_threads: int) -> dict[int, float]:
        """Seconds by the number of tokens. One step alone is slower than those of an answer, one after the
        other, and anything may hold it up: the least is nearest to what those take."""
        return {
            size.n_tokens: min(times)
            for size, times in self._times.items()
            if size.n_threads == n_threads
        }

    def _measure_size(self, size: Size) -> None:
        n = size.n_tokens
        if self._is_too_long(n):
            return
        self.runner.set_threads(size.n_threads)
        seq_id = self._seq_id = self._acquire()
        took_s = self._run(seq_id, 0, n, n if n <= MOST_WITH_LOGITS else 1)
        self._times.setdefault(size, []).append(took_s)
        self.close()

    def _measure_depth(self) -> None:
        """One chunk more of the long prompt, or a step below a tile behind it."""
        self.runner.set_threads(self.n_threads)
        if self._seq_id is None:
            self._seq_id = self._acquire()
            self._deep.clear()
        depth = len(self._deep) * TILE
        if depth < DEPTH:
            took_s = self._run(self._seq_id, depth, TILE, 1)
            self.kv.append(self._seq_id, TILE)
            self._deep.append((depth, took_s))
            return
        self._deep_below.append(self._run(self._seq_id, depth, BELOW_TILE, 1))
        self.runner.trim(self._seq_id, depth)

    def _acquire(self) -> int:
        seq_id = self.kv.acquire(Match(None, 0))
        assert seq_id is not None, "`can_run` has been asked"
        return seq_id

    def _run(self, seq_id: int, first_pos: int, n: int, n_outputs: int) -> float:
        """The seconds of a step."""
        tokens = array("i", [(7919 * (first_pos + i) + 13) % self.runner.n_vocab for i in range(n)])
        row = Row(seq_id, tokens, first_pos, min(n_outputs, self.runner.max_outputs))
        started = self.clock()
        self.runner.run([row])
        return self.clock() - started

    def _is_too_long(self, n_tokens: int) -> bool:
        """Whether a step of this size would take longer than any that the scheduler picks."""
        known = [s / n for n, s in self._least(self.n_threads).items() if n >= 16]
        return bool(known) and n_tokens > TILE and min(known) * n_tokens > self.longest_s
