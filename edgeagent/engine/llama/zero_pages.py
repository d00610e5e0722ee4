"""Gives memory back that holds nothing but zeros, or what lies in a file.

llama.cpp fills the KV cache with zeros when it makes a context, and so takes memory for every cell, although
few are in use most of the time: SmolLM2-135M with 16,384 cells takes 377 MB for them, and 104 for its
weights. A private page of zeros that is given back reads as zeros again, and takes memory again when
something is written to it.
"""

from __future__ import annotations

import ctypes
import mmap
from collections.abc import Iterable, Iterator

import numpy as np

# Smaller mappings hold no cache, and maybe the stack of a thread.
LEAST_BYTES = 16 << 20
# Looked at together: this much has a small table of pages, and fits into no cache in any case.
BLOCK_BYTES = 16 << 20
# Left at both ends of a run of zeros: Python's next arena of small objects (1 MiB) may lie beside the
# cache, in the same mapping and as part of a huge page, and get an object while its zeros are given back.
EDGE_BYTES = 2 << 20
_DONTNEED = 4  # MADV_DONTNEED, the same on every architecture

Range = tuple[int, int]  # addresses from the first on, to before the second


def give_back(mappings: Iterable[Range]) -> int:
    """Give back the pages of zeros of these private anonymous mappings; the bytes that were given back.

    Nothing else may write to them meanwhile: call it before threads start, or for new mappings. 377 MB take
    50 ms.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    n_bytes = 0
    for start, end in mappings:
        if end - start < LEAST_BYTES:
            continue
        found = [
            run
            for block in range(start, end, BLOCK_BYTES)
            for run in _zero_runs(libc, block, min(end, block + BLOCK_BYTES))
        ]
        for first, last in _joined(found):
            n_inner = last - first - 2 * EDGE_BYTES
            if n_inner <= 0:
                continue
            inner = ctypes.c_void_p(first + EDGE_BYTES)
            if libc.madvise(inner, ctypes.c_size_t(n_inner), _DONTNEED) == 0:
                n_bytes += n_inner
    return n_bytes


def without(mappings: Iterable[Range], others: Iterable[Range]) -> list[Range]:
    """The parts of mappings that lie in none of the others."""
    left = sorted(mappings)
    for first, end in others:
        parts = [part for a, b in left for part in ((a, min(b, first)), (max(a, end), b))]
        left = [(a, b) for a, b in dict.fromkeys(parts) if a < b]
    return left


def drop(mappings: Iterable[Range]) -> None:
    """Take the pages of mapped files out of memory; those that are read again come back from the file."""
    libc = ctypes.CDLL(None, use_errno=True)
    for start, end in mappings:
        libc.madvise(ctypes.c_void_p(start), ctypes.c_size_t(end - start), _DONTNEED)


def _joined(runs: Iterable[Range]) -> list[Range]:
    """Runs in the order of their addresses, those that touch as one."""
    joined: list[Range] = []
    for first, end in runs:
        if joined and joined[-1][1] == first:
            first = joined.pop()[0]
        joined.append((first, end))
    return joined


def _zero_runs(libc: ctypes.CDLL, start: int, end: int) -> Iterator[Range]:
    """The runs of pages that are in memory and hold zeros."""
    n_pages = (end - start) // mmap.PAGESIZE
    table = (ctypes.c_ubyte * n_pages)()
    if libc.mincore(ctypes.c_void_p(start), ctypes.c_size_t(end - start), table) != 0:
        return
    is_resident = (np.ctypeslib.as_array(table) & 1).astype(np.bool_)
    for first, last in _runs(is_resident):  # reading others would put them into the page table
        n = last - first
        words = (ctypes.c_uint64 * (n * mmap.PAGESIZE // 8)).from_address(
            start + first * mmap.PAGESIZE
        )
        is_zero = np.ctypeslib.as_array(words).reshape(n, -1).max(axis=1) == 0
        for a, b in _runs(is_zero):
            yield start + (first + a) * mmap.PAGESIZE, start + (first + b) * mmap.PAGESIZE


def _runs(flags: np.ndarray[tuple[int], np.dtype[np.bool_]]) -> Iterator[Range]:
    """Where flags in a row are true: from the first on, to before the second."""
    edges = np.flatnonzero(np.diff(flags.astype(np.int8), prepend=0, append=0))
    yield from zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True)
