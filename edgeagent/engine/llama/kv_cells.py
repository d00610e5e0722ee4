"""Reads the contents of KV cells as bytes, and writes them back.

The bytes are llama.cpp's own and fit the same model file, the same types of keys and values and the same
build of llama.cpp only, which the caller must check (`kind`). llama.cpp refuses what it cannot use.
"""

from __future__ import annotations

import ctypes
import mmap
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np

from edgeagent.engine.llama.bindings import build, lib
from edgeagent.engine.llama.model import Llama
from edgeagent.errors import EngineFailed
from edgeagent.types.engine_config import EngineConfig


class Context(Protocol):
    """A llama.cpp context, its memory, and a sequence id in it that is free."""

    context: Any
    memory: Any
    spare_id: int


def kind(llama: Llama, config: EngineConfig) -> str | None:
    """What the bytes depend on beside the model file; None where a state cannot be cut anywhere."""
    if not llama.can_trim or llama.has_sliding_window:
        return None
    return f"{build()} {config.kv_type} {config.flash_attention} {int(config.reproducible)}"


def cell_bytes(llama: Llama) -> int:
    """About how many bytes a cell takes."""
    return max(1, llama.kv_bytes() // llama.n_ctx)


_OWN = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
# Taken at once: a fault for each page as it is written takes half again as long. Not of more than this, since
# no other thread of Python goes on meanwhile.
_AT_ONCE = _OWN | getattr(mmap, "MAP_POPULATE", 0)
MOST_AT_ONCE = 4 << 20


def new_pages(n_bytes: int) -> mmap.mmap:
    """Pages that are returned when they are dropped."""
    flags = _AT_ONCE if n_bytes <= MOST_AT_ONCE else _OWN
    return mmap.mmap(-1, max(1, n_bytes), flags=flags)


class PageStore:
    """Pages for one state at a time that are used again: new ones cost 8 to 15 us a cell."""

    def __init__(self) -> None:
        self._pages = new_pages(mmap.PAGESIZE)

    def room(self, n_bytes: int) -> mmap.mmap:
        """Pages for so many bytes, in place of those given before."""
        if n_bytes > len(self._pages):
            self._pages = new_pages(1)  # so that never both are in memory
            self._pages = new_pages(n_bytes)
        return self._pages


def lift(
    llama: Context,
    seq_id: int,
    first: int,
    last: int,
    room: Callable[[int], mmap.mmap] = new_pages,
) -> memoryview:
    """The state of positions [first, last) of a sequence, which keeps it, in the pages that `room` gives for
    so many bytes. Raises: EngineFailed."""
    spare = llama.spare_id
    lib.llama_memory_seq_cp(llama.memory, seq_id, spare, first, last)
    try:
        return read(llama.context, spare, room)
    finally:
        lib.llama_memory_seq_rm(llama.memory, spare, -1, -1)


def read(context: Any, seq_id: int, room: Callable[[int], mmap.mmap] = new_pages) -> memoryview:
    """The state of a whole sequence, in the pages that `room` gives. Raises: EngineFailed."""
    size = int(lib.llama_state_seq_get_size(context, seq_id))
    pages = room(size)
    n = int(lib.llama_state_seq_get_data(context, address_of(pages), size, seq_id))
    if n == 0:
        raise EngineFailed("llama.cpp could not read its KV cache.")
    return memoryview(pages)[:n]


def place(llama: Context, seq_id: int, first: int, last: int, data: bytes | memoryview) -> bool:
    """Give a sequence that has the positions before `first` those up to `last`. False, and nothing has
    changed, where llama.cpp does not take the bytes or finds no room for them."""
    spare = llama.spare_id
    n = int(lib.llama_state_seq_set_data(llama.context, address_of(data), len(data), spare))
    if n:
        lib.llama_memory_seq_cp(llama.memory, spare, seq_id, first, last)
    lib.llama_memory_seq_rm(llama.memory, spare, -1, -1)
    return n > 0


def address_of(data: bytes | memoryview | mmap.mmap) -> Any:
    """Where the bytes are. The caller keeps them."""
    return ctypes.cast(
        int(np.frombuffer(data, np.uint8).ctypes.data), ctypes.POINTER(ctypes.c_uint8)
    )
