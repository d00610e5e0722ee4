"""Packs the cells of the KV cache: implements `KVMemory.pack` of `kv_cache.py` with llama.cpp.

llama.cpp has no function for that any more. The state of each run is read under a spare id and written back
into the emptied cache, whose search for free cells begins at the first.
"""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np

from edgeagent.engine.batching.kv_cache import CellRun
from edgeagent.engine.llama import kv_cells
from edgeagent.engine.llama.bindings import lib
from edgeagent.engine.llama.model import Llama
from edgeagent.errors import EngineFailed

# The cells that are read are in memory twice for some milliseconds.
MAX_MOVED_BYTES = 32 << 20
# Of a run: its header and, per cell, position and sequence ids.
HEADER_BYTES = 4096
CELL_BYTES = 64


def n_movable(llama: Llama) -> int:
    """How many cells `pack` may move; 0 where a model's state cannot be cut anywhere."""
    if not llama.can_trim or llama.has_sliding_window:
        return 0
    return int(MAX_MOVED_BYTES * llama.n_ctx // max(1, llama.kv_bytes()))


def pack(llama: Llama, runs: list[CellRun]) -> None:
    """Read all cells and write them back from the first cell on, one run after another.

    Raises: EngineFailed when llama.cpp refuses a part; the cache is spoiled then.
    """
    n_cells = sum(run.n for run in runs)
    per_cell = llama.kv_bytes() // llama.n_ctx + 1 + CELL_BYTES
    capacity = n_cells * per_cell + len(runs) * HEADER_BYTES
    # Separate pages that are returned at once: memory that malloc keeps would count against the budget.
    with kv_cells.new_pages(capacity) as store:
        pages = np.frombuffer(store, np.uint8)
        try:
            _move(llama, runs, int(pages.ctypes.data), capacity)
        finally:
            del pages


def _move(llama: Llama, runs: list[CellRun], address: int, capacity: int) -> None:
    sizes: list[int] = []
    for run in runs:
        at = sum(sizes)
        sizes.append(_lift(llama, run, address + at, capacity - at))
    lib.llama_memory_clear(llama.memory, False)
    for run, size in zip(runs, sizes, strict=True):
        _put_back(llama, run, address, size)
        address += size


def _lift(llama: Llama, run: CellRun, address: int, capacity: int) -> int:
    """Write the state of a run to memory. Returns its size in bytes."""
    spare = llama.spare_id
    first, last = run.first_pos, run.first_pos + run.n
    lib.llama_memory_seq_cp(llama.memory, min(run.owners), spare, first, last)
    size = int(lib.llama_state_seq_get_data(llama.context, _bytes(address), capacity, spare))
    lib.llama_memory_seq_rm(llama.memory, spare, -1, -1)
    if size == 0:
        raise EngineFailed("llama.cpp could not read its KV cache.")
    return size


def _put_back(llama: Llama, run: CellRun, address: int, size: int) -> None:
    spare = llama.spare_id
    first, last = run.first_pos, run.first_pos + run.n
    if lib.llama_state_seq_set_data(llama.context, _bytes(address), size, spare) == 0:
        raise EngineFailed("llama.cpp could not restore its KV cache.")
    for owner in run.owners:
        lib.llama_memory_seq_cp(llama.memory, spare, owner, first, last)
    lib.llama_memory_seq_rm(llama.memory, spare, -1, -1)


def _bytes(address: int) -> Any:
    return ctypes.cast(address, ctypes.POINTER(ctypes.c_uint8))
