"""Runs the rows of one step on a model.

`Runner` is what the engine needs of a model. `LlamaRunner` runs llama.cpp; tests use one without weights.
"""

from __future__ import annotations

from array import array
from typing import Any, NamedTuple, Protocol

import numpy as np

from edgeagent.engine.batching.kv_cache import CellRun
from edgeagent.engine.llama import kv_cells, kv_packing
from edgeagent.engine.llama.model import Llama, StepAborted
from edgeagent.engine.llama.sampler_chain import Candidates
from edgeagent.types.engine_config import EngineConfig

__all__ = ["LlamaRunner", "Row", "Runner", "StepAborted"]


class Row(NamedTuple):
    """The tokens of one sequence in one step, from position `first_pos` on. Logits are needed after the last
    `n_outputs` of them."""

    seq_id: int
    tokens: array[int]
    first_pos: int
    n_outputs: int


class Runner(Protocol):
    n_vocab: int
    max_outputs: int  # of one step, for which memory was set aside
    end_tokens: frozenset[int]
    can_trim: bool
    n_movable: int
    cell_bytes: int
    candidates: Candidates

    def run(self, rows: list[Row]) -> np.ndarray[Any, Any]:
        """Logits: float32 [n_outputs of all rows, n_vocab], in the order of the rows. Raises: Aborted."""
        ...

    def piece(self, token: int) -> bytes:
        """The bytes a token adds to a text."""
        ...

    def name(self, token: int) -> str:
        """The name of a token, also of one that adds no text."""
        ...

    def copy(self, src: int, dst: int, n: int) -> None: ...

    def trim(self, seq_id: int, n: int) -> None: ...

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
        self.max_outputs = llama.max_outputs
        self.end_tokens = llama.end_tokens
        self.can_trim = llama.can_trim
        self.candidates = Candidates(llama.n_vocab)
        self.piece = llama.piece
        self.name = llama.text_of
        self.copy = llama.copy
        self.trim = llama.trim
        self.n_movable = kv_packing.n_movable(llama)
        self.set_threads = llama.set_threads
        self.wait_briefly = llama.wait_briefly
        self.arm = llama.arm
        self.abort = llama.abort

    def use_adapter(self, adapter: str | None) -> None:
        self._llama.adapters.use(self._llama.context, adapter)

    def pack(self, runs: list[CellRun]) -> None:
        kv_packing.pack(self._llama, runs)

    def lift(self, seq_id: int, first: int, last: int) -> memoryview:
        return kv_cells.lift(self._llama, seq_id, first, last)

    def place(self, seq_id: int, first: int, last: int, data: bytes | memoryview) -> bool:
        return kv_cells.place(self._llama, seq_id, first, last, data)

    def run(self, rows: list[Row]) -> np.ndarray[Any, Any]:
        batch = self._llama.batch
        batch.clear()
        for row in rows:
            batch.add(row.seq_id, row.tokens, row.first_pos, n_outputs=row.n_outputs)
        return self._llama.decode()
