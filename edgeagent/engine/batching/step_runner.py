"""Runs the rows of one step on a model.

`Runner` is what the engine needs of a model. `LlamaRunner` runs llama.cpp; tests use one without weights.
"""

from __future__ import annotations

import logging
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol

import numpy as np

from edgeagent.engine.batching.kv_cache import CellRun
from edgeagent.engine.llama import kv_cells, kv_packing, zero_pages
from edgeagent.engine.llama.answer_streams import AnswerStreams
from edgeagent.engine.llama.batch import Row, StepAborted
from edgeagent.engine.llama.model import Llama
from edgeagent.engine.llama.prompt_context import PromptContext
from edgeagent.engine.llama.prompt_thread import PromptThread
from edgeagent.engine.llama.sampler_chain import Candidates
from edgeagent.errors import ModelUnusable
from edgeagent.types.engine_config import EngineConfig
from edgeagent.types.step_costs import MOST_BESIDE
from edgeagent.worker import confinement

__all__ = ["LlamaRunner", "Row", "Runner", "StepAborted"]

logger = logging.getLogger(__name__)


class Runner(Protocol):
    n_vocab: int
    max_outputs: int  # of one step, for which memory was set aside
    end_tokens: frozenset[int]
    can_trim: bool
    n_movable: int
    cell_bytes: int
    n_walking: int  # tokens of the last step that walked the cells of all sequences
    n_heads: int  # of attention
    candidates: Candidates
    can_part: bool  # prompts are computed apart from answers, once `begin_apart` was called
    is_beside: bool  # and on threads of their own
    prompt_threads: list[PromptThread]
    prompt_ended: threading.Event

    @property
    def reserved_bytes(self) -> int:
        """Memory that the contexts for prompts and answers may take beside what they take now."""
        ...

    def rest(self) -> None:
        """Take little memory: no sequence runs, and none has for a while."""
        ...

    def begin_apart(self) -> None:
        """Be ready to compute prompts and answers apart: more than one sequence runs, or may run soon."""
        ...

    def run(self, rows: list[Row], n_used: int = 0) -> np.ndarray[Any, Any]:
        """Logits: float32 [n_outputs of all rows, n_vocab], in the order of the rows. `n_used` cells are in
        use before the step. Raises: StepAborted."""
        ...

    def piece(self, token: int) -> bytes:
        """The bytes a token adds to a text."""
        ...

    def name(self, token: int) -> str:
        """The name of a token, also of one that adds no text."""
        ...

    def copy(self, src: int, dst: int, n: int) -> None: ...

    def trim(self, seq_id: int, n: int) -> None: ...

    def settle(self, seq_id: int) -> None: ...

    def pack(self, runs: list[CellRun]) -> None: ...

    def lift(self, seq_id: int, first: int, last: int) -> bytes | memoryview:
        """The contents of the cells at positions [first, last): `cell_bytes` for each. `cell_bytes` is 0 if
        the model does not allow it."""
        ...

    def place(self, seq_id: int, first: int, last: int, data: bytes | memoryview) -> bool: ...

    def set_threads(self, n_threads: int) -> None: ...

    def wait_briefly(self, is_contended: bool) -> None: ...

    def use_adapter(self, adapter: str | None) -> None:
        """Compute with this LoRA adapter from the next step on. Raises: EngineFailed."""
        ...

    def arm(self) -> None: ...

    def abort(self) -> None: ...


class LlamaRunner:
    """A `Runner` on llama.cpp. Engine thread only, except `abort`."""

    def __init__(self, llama: Llama, config: EngineConfig) -> None:
        self._llama = llama
        self.state_kind = kv_cells.kind(llama, config)
        self.cell_bytes = kv_cells.cell_bytes(llama) if self.state_kind is not None else 0
        self.n_vocab = llama.n_vocab
        self.n_heads = llama.n_heads
        self.max_outputs = llama.max_outputs
        self.end_tokens = llama.end_tokens
        self.can_trim = llama.can_trim
        self.candidates = Candidates(llama.n_vocab)
        self.piece = llama.piece
        self.name = llama.text_of
        self.n_movable = kv_packing.n_movable(llama)
        self.n_walking = 0
        self.can_part = config.n_prompt_cells > 0 and self.cell_bytes > 0
        self.is_beside = self.can_part and config.n_prompt_threads > 0
        self._has_streams = config.n_answer_cells > 0 and self.cell_bytes > 0
        self._config = config
        self._is_apart = False
        self._cells: list[zero_pages.Range] = []  # of the contexts that `begin_apart` made
        self._contexts: list[PromptContext] = []
        self.streams: AnswerStreams | None = None
        self.prompt_ended = threading.Event()
        self.prompt_threads: list[PromptThread] = []
        self.wait_briefly = llama.wait_briefly
        if not config.cells_on_demand:
            self._make_contexts()

    @property
    def prompts(self) -> PromptContext | None:
        """Where prompts are computed apart from answers."""
        return self._contexts[0] if self._contexts else None

    def begin_apart(self) -> None:
        """Make the contexts for prompts and answers, if they are wanted and not made yet. The first request
        needs none of them, and need not wait for them: llama.cpp fills their cells with zeros, for 0.1 s."""
        if self._is_apart:
            return
        before = confinement.private_mappings()
        try:
            self._make_contexts()
        except ModelUnusable as exc:
            logger.warning("contexts_missing %s", exc.message)
        # Other threads run: nothing but what is new may be given back.
        given = zero_pages.give_back(zero_pages.without(confinement.private_mappings(), before))
        self._cells = zero_pages.of_sizes(given, self._sizes_apart)

    @property
    def _sizes_apart(self) -> list[int]:
        """Bytes of the cells of each context that `begin_apart` makes."""
        config, sizes = self._config, []
        if self.can_part:
            sizes += [config.n_prompt_cells] * max(1, config.n_prompt_threads)
        if self._has_streams:
            sizes.append(config.n_seq * config.n_answer_cells)
        return [n * self.cell_bytes for n in sizes]

    @property
    def reserved_bytes(self) -> int:
        """Memory that the cells of these contexts will take, and do not take now."""
        if not self._is_apart:
            return sum(self._sizes_apart)
        return zero_pages.n_bytes(self._cells) - zero_pages.n_resident(self._cells)

    def rest(self) -> None:
        """No sequence runs: give back what the cells of these contexts took."""
        for context in self._contexts:
            context.clear()
        is_empty = all(context.is_empty for context in self._contexts)
        if is_empty and (self.streams is None or self.streams.is_empty):
            zero_pages.drop(self._cells)

    def _make_contexts(self) -> None:
        """Raises: ModelUnusable."""
        self._is_apart = True
        config = self._config
        # llama.cpp fills the cells of a context with zeros: two are made at once.
        with ThreadPoolExecutor(1, "contexts") as other:
            streams = (
                other.submit(AnswerStreams, self._llama, config) if self._has_streams else None
            )
            self._contexts = self._prompt_contexts(config) if self.can_part else []
        self.streams = streams.result() if streams is not None else None
        self.prompt_threads += [
            PromptThread(context, self.prompt_ended)
            for context in self._contexts[: config.n_prompt_threads]
        ]

    def _prompt_contexts(self, config: EngineConfig) -> list[PromptContext]:
        """One for whole steps, and one more for each further thread."""
        n_beside = min(MOST_BESIDE, config.n_batch)
        sizes = [config.n_batch, *[n_beside] * (config.n_prompt_threads - 1)]
        return [PromptContext(self._llama, config, size, self.settle) for size in sizes]

    def arm(self) -> None:
        self._llama.arm()
        if self.prompts is not None and not self.prompts.is_running:
            self.prompts.arm()

    def abort(self) -> None:
        self._llama.abort()
        if self.prompts is not None and not self.prompts.is_running:
            self.prompts.abort()

    def use_adapter(self, adapter: str | None) -> None:
        self._llama.adapters.use(self._llama.context, adapter)

    def settle(self, seq_id: int) -> None:
        """Have all cells of a sequence in the unified cache."""
        if self.streams is not None:
            self.streams.settle(seq_id)

    def copy(self, src: int, dst: int, n: int) -> None:
        if self._n_unified(src, n) < n:
            self.settle(src)
        self._llama.copy(src, dst, n)

    def pack(self, runs: list[CellRun]) -> None:
        """Pack what is in the unified cache of these runs."""
        found = []
        for run in runs:
            last = run.first_pos + run.n
            n = min(self._n_unified(seq_id, last) for seq_id in run.owners) - run.first_pos
            if n > 0:
                found.append(run._replace(n=n))
        kv_packing.pack(self._llama, found)

    def lift(self, seq_id: int, first: int, last: int) -> memoryview:
        self.settle(seq_id)
        return kv_cells.lift(self._llama, seq_id, first, last)

    def place(self, seq_id: int, first: int, last: int, data: bytes | memoryview) -> bool:
        self.settle(seq_id)
        return kv_cells.place(self._llama, seq_id, first, last, data)

    def trim(self, seq_id: int, n: int) -> None:
        self._llama.trim(seq_id, n)
        for context in self._contexts:
            context.trim(seq_id, n)
        if self.streams is not None:
            self.streams.trim(seq_id, n)

    def set_threads(self, n_threads: int) -> None:
        self._llama.set_threads(n_threads)
        if self.streams is not None:
            self.streams.set_threads(n_threads)
        if self.prompts is not None and not self.prompts.is_running:
            self.prompts.set_threads(n_threads)

    def run(self, rows: list[Row], n_used: int = 0) -> np.ndarray[Any, Any]:
        prompts = self._rows_apart(rows, n_used)
        computed = self.prompts.compute(prompts) if self.prompts is not None and prompts else None
        apart = set() if computed is None else {row.seq_id for row in prompts}
        rest = [row for row in rows if row.seq_id not in apart]
        streamed = self._rows_streamed(rest, n_used)
        together = [row for row in rest if row.seq_id not in streamed]
        self.n_walking = sum(len(row.tokens) for row in together)
        parts = [] if computed is None else [(prompts, computed)]
        if streamed and self.streams is not None:
            own = [row for row in rest if row.seq_id in streamed]
            parts.append((own, self.streams.run(own)))
        if together:
            parts.append((together, self._run_together(together)))
        return parts[0][1] if len(parts) == 1 else _in_order(rows, parts)

    def _n_unified(self, seq_id: int, n: int) -> int:
        """How many of the first n tokens of a sequence are in the unified cache."""
        return n if self.streams is None else self.streams.n_settled(seq_id, n)

    def _rows_apart(self, rows: list[Row], n_used: int) -> list[Row]:
        """The rows that cost less in the context for prompts."""
        if self.prompts is None or self._llama.adapters.current is not None:
            return []
        return [row for row in rows if self.prompts.is_worth(row, n_used)]

    def _rows_streamed(self, rows: list[Row], n_used: int) -> set[int]:
        """The sequences whose rows cost less in streams of their own."""
        if self.streams is None or self._llama.adapters.current is not None:
            return set()
        return self.streams.take(rows, n_used)

    def _run_together(self, rows: list[Row]) -> np.ndarray[Any, Any]:
        batch = self._llama.batch
        batch.clear()
        for row in rows:
            self.settle(row.seq_id)
            batch.add(row.seq_id, row.tokens, row.first_pos, n_outputs=row.n_outputs)
        return self._llama.decode()


def _in_order(
    rows: list[Row], parts: list[tuple[list[Row], np.ndarray[Any, Any]]]
) -> np.ndarray[Any, Any]:
    """The logits of rows that were computed in parts, in the order of the rows."""
    by_sequence: dict[int, np.ndarray[Any, Any]] = {}
    for part, logits in parts:
        end = 0
        for row in part:
            end += row.n_outputs
            by_sequence[row.seq_id] = logits[end - row.n_outputs : end]
    return np.concatenate([by_sequence[row.seq_id] for row in rows])
