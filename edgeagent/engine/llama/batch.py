"""A llama_batch, and one step of a context with it."""

from __future__ import annotations

import ctypes
from array import array
from typing import Any, NamedTuple

import numpy as np

from edgeagent.engine.llama.bindings import lib
from edgeagent.errors import EngineFailed

_ABORTED = 2
_NO_SLOT = 1


# `llama_get_logits` as a number: a pointer of ctypes, and what it points to, took 40 us between two steps.
_logits_address = ctypes.PYFUNCTYPE(ctypes.c_size_t, ctypes.c_void_p)(
    ctypes.cast(lib.llama_get_logits, ctypes.c_void_p).value or 0
)


class StepAborted(Exception):
    """`decode` was interrupted by `abort`; the caller must trim the cells of the batch."""


class Row(NamedTuple):
    """The tokens of one sequence in one step, from position `first_pos` on. Logits are needed after the last
    `n_outputs` of them."""

    seq_id: int
    tokens: array[int]
    first_pos: int
    n_outputs: int

    @property
    def last_pos(self) -> int:
        """The position behind them."""
        return self.first_pos + len(self.tokens)


class Batch:
    """A llama_batch whose arrays are numpy's: filled by slices instead of field by field."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.token = np.zeros(capacity, np.int32)
        self.pos = np.zeros(capacity, np.int32)
        self.seq_id = np.zeros(capacity, np.int32)
        self.output = np.zeros(capacity, np.int8)
        self._one = np.ones(capacity, np.int32)
        self._rows = self.seq_id.ctypes.data + 4 * np.arange(capacity, dtype=np.uint64)
        self.struct = lib.llama_batch()
        pointers: dict[str, np.ndarray[Any, Any]] = {
            "token": self.token, "pos": self.pos, "n_seq_id": self._one,
            "seq_id": self._rows, "logits": self.output,
        }  # fmt: skip
        kinds = dict(lib.llama_batch._fields_)
        for name, values in pointers.items():
            setattr(self.struct, name, ctypes.cast(values.ctypes.data, kinds[name]))
        self.struct.n_tokens = 0
        self.n_outputs = 0
        self._views: dict[tuple[int, int], np.ndarray[Any, Any]] = {}

    def clear(self) -> None:
        self.struct.n_tokens = 0
        self.n_outputs = 0

    def add(self, seq_id: int, tokens: array[int], first_pos: int, *, n_outputs: int) -> None:
        """Append a run of tokens of one sequence, with logits after the last `n_outputs` of them."""
        start = self.struct.n_tokens
        end = start + len(tokens)
        self.token[start:end] = tokens
        self.pos[start:end] = np.arange(first_pos, first_pos + len(tokens), dtype=np.int32)
        self.seq_id[start:end] = seq_id
        self.output[start:end] = 0
        if n_outputs:
            self.output[end - n_outputs : end] = 1
            self.n_outputs += n_outputs
        self.struct.n_tokens = end

    def logits(self, context: Any, n_vocab: int) -> np.ndarray[Any, Any]:
        """float32 [n_outputs, n_vocab] of the context that has run the batch. It keeps them."""
        if not self.n_outputs:
            return np.empty((0, n_vocab), np.float32)
        address = _logits_address(context)
        view = self._views.get((address, self.n_outputs))
        if view is None:
            raw = (ctypes.c_float * (self.n_outputs * n_vocab)).from_address(address)
            view = np.ctypeslib.as_array(raw).reshape(self.n_outputs, n_vocab)
            self._views[address, self.n_outputs] = view
        return view


def run_batch(context: Any, batch: Batch, n_vocab: int) -> np.ndarray[Any, Any]:
    """Run a batch. Returns and raises: see `Llama.decode`."""
    status = lib.llama_decode(context, batch.struct)
    if status == _ABORTED:
        raise StepAborted
    if status == _NO_SLOT:
        raise EngineFailed("The KV cache has no room for this step.")
    if status != 0:
        raise EngineFailed(f"llama.cpp failed a step with status {status}.")
    return batch.logits(context, n_vocab)
