"""Measures what steps of a model cost on this device, with the engine's own context while it is idle.

One step at a time, so that a request waits for no more than one; its arrival aborts that one. The sizes that
decide most come first: when the time is up, the result has those that were measured.
"""

from __future__ import annotations

import statistics
import time
from array import array
from collections.abc import Callable
from dataclasses import dataclass, field

from edgeagent.engine.batching.kv_cache import KVCache, Match
from edgeagent.engine.batching.step_runner import Row, Runner, StepAborted
from edgeagent.errors import EngineFailed
from edgeagent.types.step_costs import MOST_WITH_LOGITS, TILE, StepCosts

# Numbers of tokens, the most useful first. Up to MOST_WITH_LOGITS each token has logits, as in decode steps.
SIZES = (8, 1, TILE, 16, TILE - 1, 4, 2, 128, 32, 256, 48, 96, 192, 384, 512)
DEPTH = 384
N_TIMES = 3
LIMIT_S = 12.0
NEEDED = {1, 8, 16, TILE}


@dataclass(frozen=True)
class _Probe:
    """A step of `n_tokens` of one sequence behind `depth` cached ones."""

    n_tokens: int
    depth: int = 0

    @property
    def n_outputs(self) -> int:
        return self.n_tokens if self.n_tokens <= MOST_WITH_LOGITS else 1


@dataclass
class StepProbe:
    """One measurement. Engine thread only; `is_running` may be read by any."""

    kv: KVCache
    runner: Runner
    n_batch: int
    longest_s: float  # steps that take longer are of no use to the scheduler
    clock: Callable[[], float] = time.perf_counter
    is_running: bool = False
    _times: dict[_Probe, list[float]] = field(default_factory=dict)
    _spent_s: float = 0.0
    _todo: list[_Probe] = field(default_factory=list)

    def __post_init__(self) -> None:
        sizes = [n for n in SIZES if n <= self.n_batch]
        deep = [_Probe(n, DEPTH) for n in (MOST_WITH_LOGITS, TILE) if n <= self.n_batch]
        self._todo = [*map(_Probe, sizes), *deep] * N_TIMES

    @property
    def is_over(self) -> bool:
        return not self._todo or self._spent_s > LIMIT_S

    def can_run(self) -> bool:
        """Whether there are cells and an id, so that nothing cached has to go."""
        return self.kv.has_free_id and self.kv.n_free >= self.n_batch + DEPTH

    def step(self) -> None:
        """Measure the next size. An aborted one is measured again."""
        probe = self._todo[0]
        if self._is_too_long(probe.n_tokens + probe.depth // 8):
            self._todo.pop(0)
            return
        seq_id = self.kv.acquire(Match(None, 0))
        assert seq_id is not None, "`can_run` has been asked"
        self.is_running = True
        self.runner.arm()
        begun = self.clock()
        try:
            done = 0
            while done < probe.depth:
                n = min(TILE, probe.depth - done)
                self._run(seq_id, done, n, 1)
                done += n
            started = self.clock()
            self._run(seq_id, done, probe.n_tokens, probe.n_outputs)
            self._times.setdefault(probe, []).append(self.clock() - started)
            self._todo.pop(0)
        except StepAborted:
            pass
        except EngineFailed:  # what the model cannot do is not measured
            self._todo.pop(0)
        finally:
            self.is_running = False
            self.runner.trim(seq_id, 0)
            self.kv.release(seq_id)
            self._spent_s += self.clock() - begun

    def result(self) -> StepCosts | None:
        """The medians; None where too little was measured."""
        step_s = {p.n_tokens: self._median(p) for p in self._times if not p.depth}
        if not step_s.keys() >= {n for n in NEEDED if n <= self.n_batch}:
            return None
        return StepCosts(
            step_s=step_s,
            cell_s=self._cell_s(step_s, MOST_WITH_LOGITS),
            tiled_cell_s=self._cell_s(step_s, TILE),
        )

    def _run(self, seq_id: int, first_pos: int, n: int, n_outputs: int) -> None:
        tokens = array("i", [(7919 * (first_pos + i) + 13) % self.runner.n_vocab for i in range(n)])
        self.runner.run([Row(seq_id, tokens, first_pos, min(n_outputs, self.runner.max_outputs))])

    def _is_too_long(self, n_tokens: int) -> bool:
        """Whether a step of this size would take longer than any that the scheduler picks."""
        known = [p for p in self._times if p.n_tokens >= 16]
        if not known:
            return False
        rate_s = min(self._median(p) / p.n_tokens for p in known)
        return n_tokens > TILE and rate_s * n_tokens > self.longest_s

    def _cell_s(self, step_s: dict[int, float], n: int) -> float:
        probe = _Probe(n, DEPTH)
        if probe not in self._times or n not in step_s:
            return 0.0
        return max(0.0, self._median(probe) - step_s[n]) / (n * DEPTH)

    def _median(self, probe: _Probe) -> float:
        return statistics.median(self._times[probe])
