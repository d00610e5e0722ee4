"""How many prompt tokens the next step takes: by the measured cost curve, or by a rate until there is one."""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence
from typing import Protocol

from edgeagent.engine.batching.scheduler import MIN_CHUNK, Lane, Pace
from edgeagent.engine.batching.step_cost import StepCost, StepLoad, pick_chunk
from edgeagent.engine.batching.step_runner import Row
from edgeagent.types.engine_config import EngineConfig
from edgeagent.types.step_costs import StepCosts

logger = logging.getLogger(__name__)

# While nobody waits for the next token of an answer, only new requests wait for a chunk.
ALONE = 4
EACH = 4  # steps of answers alone


class Running(Protocol):
    """What is asked of a running sequence."""

    @property
    def is_decoding(self) -> bool: ...

    @property
    def n_past(self) -> int: ...


class ChunkChoice:
    """Engine thread only."""

    def __init__(self, config: EngineConfig, *, can_part: bool = False) -> None:
        self._can_part = can_part
        self._n_batch = config.n_batch
        self._budget_s = config.step_budget_ms / 1e3
        self._pace = Pace(prefill_per_s=config.prefill_tok_s)
        self._cost: StepCost | None = None
        self._n_learnt = 0
        if config.step_costs is not None:
            self.take(config.step_costs)

    @property
    def is_measured(self) -> bool:
        return self._cost is not None

    @property
    def longest_s(self) -> float:
        """The longest step that is ever chosen."""
        return ALONE * self._budget_s

    def take(self, costs: StepCosts) -> None:
        """Choose by this curve from now on."""
        self._cost = StepCost(costs, can_part=self._can_part)

    def limit(
        self, lanes: Sequence[Lane], running: Collection[Running], share: float, n_used: int = 0
    ) -> int:
        """The most prompt tokens of the next step. `share`: of the time that a chunk may take otherwise.
        `n_used`: cells in the cache."""
        n_decode = sum(lane.is_decoding for lane in lanes)
        budget_s = self._budget_s * share
        cost = self._cost
        if cost is None:
            return self._pace.chunk_limit(budget_s, n_decode, self._n_batch)
        if n_decode == len(lanes):
            return MIN_CHUNK
        n_pending = sum(lane.n_pending for lane in lanes if not lane.is_decoding)
        depths = [seq.n_past for seq in running if not seq.is_decoding]
        cells = sum(seq.n_past for seq in running if seq.is_decoding)
        depth = sum(depths) / max(1, len(depths))
        return pick_chunk(
            lambda n: (
                cost.predict(StepLoad(n_decode, n, cells, depth + n / 2, n_used))
                if n or n_decode
                else 0.0
            ),
            [n - n_decode for n in cost.sizes] + (cost.sizes if self._can_part else []),
            n_pending,
            self._n_batch - n_decode,
            budget_s if n_decode else ALONE * budget_s,
            MIN_CHUNK,
        )

    def predict(self, load: StepLoad) -> float | None:
        """Seconds of a step; None before the costs were measured."""
        return None if self._cost is None else self._cost.predict(load)

    def expect(self, load: StepLoad, n_tokens: int) -> float | None:
        """Seconds of a step of answers that nothing disturbs, which computes `n_tokens` with drafted ones;
        None before the costs were measured."""
        if self._cost is None:
            return None
        cells = load.decode_cells * n_tokens / max(1, load.n_decode)
        return self._cost.undisturbed(load._replace(n_decode=n_tokens, decode_cells=cells))

    def learn(self, load: StepLoad, took_s: float) -> None:
        """A step of this load took this long. Of steps of answers alone, which come by the hundred, each
        fourth is looked at."""
        if self._cost is None:
            if not load.n_beside:
                self._pace.observe(load.n_decode, load.n_prefill, took_s)
            return
        self._n_learnt += 1
        if not load.n_prefill and self._n_learnt % EACH and not logger.isEnabledFor(logging.DEBUG):
            return
        if logger.isEnabledFor(logging.DEBUG):
            predicted_ms = 1e3 * self._cost.predict(load)
            logger.debug(
                "step n_decode=%d n_prefill=%d decode_cells=%d prompt_depth=%d n_used=%d n_threads=%d "
                "n_beside=%d predicted_ms=%.2f took_ms=%.2f",
                *load, predicted_ms, 1e3 * took_s,
            )  # fmt: skip
        self._cost.observe(load, took_s)


def load_of(n_decode: int, rows: Sequence[Row]) -> StepLoad:
    """What a step of these rows computes, those of `n_decode` decoding sequences first."""
    prompts = rows[n_decode:]
    n_prefill = sum(len(row.tokens) for row in prompts)
    cells = sum(row.first_pos for row in rows[:n_decode])
    visits = sum(len(row.tokens) * (row.first_pos + len(row.tokens) / 2) for row in prompts)
    return StepLoad(n_decode, n_prefill, cells, visits / max(1, n_prefill))
