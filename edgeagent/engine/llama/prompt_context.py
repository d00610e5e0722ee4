"""Computes prompts in a context of their own, and moves the cells to where answers are generated.

In the unified cache each token of a prompt is compared with the cells of all sequences: 64 tokens beside
seven answers of 1,500 tokens each cost 4 times as much as alone (SmolLM2-135M, 2 threads of a Zen 4). Here
they meet their own cells only. After each step the new cells are in the main cache, and nothing else has to
know.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

import numpy as np

from edgeagent.engine.llama import kv_cells
from edgeagent.engine.llama.batch import Batch, Row, StepAborted, run_batch
from edgeagent.engine.llama.bindings import lib
from edgeagent.engine.llama.model import Llama
from edgeagent.errors import EngineFailed
from edgeagent.types.engine_config import EngineConfig
from edgeagent.types.step_costs import LEAST_APART

# Moving a cell costs as much as comparing this many tokens with a cell of another sequence: 6 us and 0.15 us.
COST_OF_MOVE = 40


class PromptContext:
    """`n_prompt_cells` cells for the prompts that are being computed, up to `n_batch` tokens in one step.

    It holds copies of what the main cache has, or what it is about to have. Engine thread only, except `run`
    and `abort`: while `run` is under way on another thread, `is_running` says so, and nobody else touches the
    cells. `settle` puts all cells of a sequence into the main cache, where some lie elsewhere.
    """

    def __init__(
        self,
        llama: Llama,
        config: EngineConfig,
        n_batch: int | None = None,
        settle: Callable[[int], None] = lambda seq_id: None,
    ) -> None:
        self._llama = llama
        self._settle = settle
        self._flag = ctypes.create_string_buffer(b"0", 2)
        self.is_running = False
        self._n_cells = config.n_prompt_cells
        self._n_threads = config.n_threads
        self.spare_id = config.n_seq
        self.context = llama.new_context(
            config,
            "prompt_cells",
            self._flag,
            n_ctx=config.n_prompt_cells,
            n_batch=n_batch or config.n_batch,
            n_ubatch=n_batch or config.n_batch,
            n_seq_max=config.n_seq + 1,
            n_outputs_max=config.n_seq + 1,
        )
        self.memory = lib.llama_get_memory(self.context)
        self._batch = Batch(int(lib.llama_n_batch(self.context)))
        self._free_ids = list(range(config.n_seq))
        self._held: dict[int, tuple[int, int]] = {}  # by main id: id here, number of tokens
        self._gone_ids: list[int] = []  # given up while a step was running
        self._rows: list[Row] = []  # of the step that is prepared
        self._n_more = 0  # tokens behind them that count for nothing
        self._logits: np.ndarray[Any, Any] | None = None  # of the step that has run
        self._store = kv_cells.PageStore()

    def is_worth(self, row: Row, n_used: int) -> bool:
        """Whether a row costs less here, when all sequences of the main cache use `n_used` cells."""
        n_tokens = len(row.tokens)
        if n_tokens < LEAST_APART or self.is_running or not self.can_take(row):
            return False
        n_moved = n_tokens if self.length(row.seq_id) == row.first_pos else row.last_pos
        return n_tokens * (n_used - row.first_pos) > COST_OF_MOVE * n_moved

    def can_take(self, row: Row) -> bool:
        """Whether a row fits in one step, and its cells and those before it in here."""
        is_small = row.n_outputs <= 1 and len(row.tokens) <= self._batch.capacity
        return is_small and row.last_pos <= self._n_cells

    def compute(self, rows: list[Row]) -> np.ndarray[Any, Any] | None:
        """Compute the rows and put their cells into the main cache. Returns logits: float32
        [n_outputs, n_vocab], valid until the next call. None, and the main cache is as it was, where a part
        did not fit.

        Raises: StepAborted, EngineFailed.
        """
        if not self.prepare(rows):
            return None
        try:
            self.run()
        except EngineFailed:
            self.give_up()
            return None
        except StepAborted:
            self.give_up()
            raise
        return self.deliver()

    def prepare(self, rows: list[Row], n_least: int = 0) -> bool:
        """Get ready to run the rows, with more tokens behind the last one where they have fewer than
        `n_least` and so many fit: these count for nothing. False where the rows do not fit."""
        self._free_gone()
        for row in rows:
            self._settle(row.seq_id)
        need = sum(row.last_pos for row in rows)
        n_more = self._n_filling(rows, need, n_least)
        if not all(self._fetch(row, rows, need + n_more) for row in rows):
            return False
        self._rows, self._n_more = rows, n_more
        self._batch.clear()
        for row in rows:
            here, _ = self._held[row.seq_id]
            self._batch.add(here, row.tokens, row.first_pos, n_outputs=row.n_outputs)
        if n_more:
            more = row.tokens[-1:] * n_more
            self._batch.add(here, more, row.last_pos, n_outputs=0)
        return True

    def _n_filling(self, rows: list[Row], need: int, n_least: int) -> int:
        """How many tokens more make `n_least` of those of the rows, which need so many cells; 0 where there
        is no room for all of them, or the model knows no positions so far."""
        n_more = max(0, n_least - sum(len(row.tokens) for row in rows))
        n_known = self._llama.n_ctx_train or self._n_cells
        has_room = need + n_more <= self._n_cells and rows[-1].last_pos + n_more <= n_known
        return n_more if has_room and n_least <= self._batch.capacity else 0

    @property
    def n_tokens(self) -> int:
        """Tokens of the step that is prepared, with those that count for nothing."""
        return int(self._batch.struct.n_tokens)

    def run(self) -> None:
        """Compute what is prepared. Any thread. Raises: StepAborted, EngineFailed."""
        self._logits = run_batch(self.context, self._batch, self._llama.n_vocab)

    def deliver(self) -> np.ndarray[Any, Any] | None:
        """Put the cells of the step that has run into the main cache. Returns as `compute`."""
        rows, logits = self._rows, self._logits
        is_done = False
        try:
            is_done = all(map(self._deliver, rows))
        finally:
            self._end_step(is_done)
        if is_done:
            return logits
        for row in rows:
            self._llama.trim(row.seq_id, row.first_pos)
        return None

    def give_up(self) -> None:
        """Forget the step that was prepared: it was aborted, or failed."""
        self._end_step(is_done=False)

    def _end_step(self, is_done: bool) -> None:
        for row in self._rows:
            if row.seq_id not in self._held:
                continue
            here, _ = self._held[row.seq_id]
            if self._n_more:
                lib.llama_memory_seq_rm(self.memory, here, row.last_pos, -1)
            self._held[row.seq_id] = here, row.last_pos
            if row.n_outputs or not is_done:  # the prompt is complete, or a part is missing
                self.drop(row.seq_id)
        self._rows = []

    def arm(self) -> None:
        """Forget an earlier `abort`."""
        self._flag[0] = b"0"

    def abort(self) -> None:
        """Interrupt `run` within about 20 ms. Any thread."""
        self._flag[0] = b"1"

    def trim(self, seq_id: int, n: int) -> None:
        """A sequence of the main cache was cut back to its first n tokens."""
        if self.length(seq_id) <= n:
            return
        if n == 0 or self.is_running:
            self.drop(seq_id)
            return
        here, _ = self._held[seq_id]
        lib.llama_memory_seq_rm(self.memory, here, n, -1)
        self._held[seq_id] = here, n

    def drop(self, seq_id: int) -> None:
        found = self._held.pop(seq_id, None)
        if found is not None:
            self._gone_ids.append(found[0])
            if not self.is_running:
                self._free_gone()

    def _free_gone(self) -> None:
        for here in self._gone_ids:
            lib.llama_memory_seq_rm(self.memory, here, -1, -1)
        self._free_ids += self._gone_ids
        self._gone_ids.clear()

    def clear(self) -> None:
        for seq_id in list(self._held):
            self.drop(seq_id)

    @property
    def is_empty(self) -> bool:
        """Whether no cell is in use."""
        return not (self.is_running or self._held or self._gone_ids)

    def set_threads(self, n_threads: int) -> None:
        if n_threads == self._n_threads:
            return
        self._n_threads = n_threads
        lib.llama_set_n_threads(self.context, n_threads, n_threads)

    def length(self, seq_id: int) -> int:
        """How many tokens of a sequence of the main cache are here."""
        return self._held[seq_id][1] if seq_id in self._held else 0

    def _fetch(self, row: Row, rows: list[Row], need: int) -> bool:
        """Have the cells before a row, and room for `need` cells of all rows."""
        n_have = self.length(row.seq_id)
        if n_have > row.first_pos:
            self.drop(row.seq_id)
            n_have = 0
        wanted = {one.seq_id for one in rows}
        others = {seq_id: n for seq_id, (_, n) in self._held.items() if seq_id not in wanted}
        while others and (need + sum(others.values()) > self._n_cells or not self._free_ids):
            seq_id = next(iter(others))
            del others[seq_id]
            self.drop(seq_id)
        if need > self._n_cells:
            return False
        here = self._held[row.seq_id][0] if row.seq_id in self._held else self._free_ids[-1]
        if n_have < row.first_pos and not self._move(
            self._llama, row.seq_id, self, here, n_have, row.first_pos
        ):
            return False
        if self._held.pop(row.seq_id, None) is None:
            self._free_ids.pop()
        self._held[row.seq_id] = here, row.first_pos  # the last to make room for others
        return True

    def _deliver(self, row: Row) -> bool:
        here, _ = self._held[row.seq_id]
        return self._move(self, here, self._llama, row.seq_id, row.first_pos, row.last_pos)

    def _move(
        self,
        source: kv_cells.Context,
        of: int,
        target: kv_cells.Context,
        to: int,
        first: int,
        last: int,
    ) -> bool:
        data = kv_cells.lift(source, of, first, last, self._store.room)
        return kv_cells.place(target, to, first, last, data)
