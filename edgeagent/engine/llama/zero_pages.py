"""Gives memory back that holds nothing but zeros, or what lies in a file.

llama.cpp fills the KV cache with zeros when it makes a context, and so takes memory for every cell, although
few are in use most of the time: SmolLM2-135M with 16,384 cells takes 377 MB for them, and 104 for its
weights. A private page of zeros that is given back reads as zeros again, and takes memory again when
something is written to it.
"""

from __future__ import annotations

import ctypes
import mmap
from collections.abc import Collection, Iterable, Iterator

import numpy as np

# Smaller mappings hold no cache, and maybe the stack of a thread.
LEAST_BYTES = 16 << 20
# Looked at together: this much has a small table of pages, and fits into no cache in any case.
BLOCK_BYTES = 16 << 20
# Left at both ends of a run of zeros: Python's next arena of small objects (1 MiB) may lie beside the
# cache, in the same mapping and as part of a huge page, and get an object while its zeros are given back.
EDGE_BYTES = 2 << 20
# A buffer of zeros has a header of the allocator on its first page, and ends within one.
SLACK_BYTES = 16 << 10
_DONTNEED = 4  # MADV_DONTNEED, the same on every architecture

Range = tuple[int, int]  # addresses from the first on, to before the second


def give_back(mappings: Iterable[Range]) -> list[Range]:
    """Give back the pages of zeros of these private anonymous mappings; the ranges that were given back.

    Nothing else may write to them meanwhile: call it before threads start, or for new mappings. 377 MB take
    50 ms.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    given: list[Range] = []
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
                given.append((first + EDGE_BYTES, last - EDGE_BYTES))
    return given


def of_sizes(given: Iterable[Range], sizes: Collection[int]) -> list[Range]:
    """The ranges among those that `give_back` gave back which lie within buffers of zeros of these sizes. A
    run of zeros that is longer may have something else in it, which is not known to stay zero."""
    return [
        (first, end)
        for first, end in given
        if any(abs(end - first + 2 * EDGE_BYTES - size) <= SLACK_BYTES for size in sizes)
    ]


def n_bytes(ranges: Iterable[Range]) -> int:
    return sum(end - first for first, end in ranges)


def n_resident(ranges: Iterable[Range]) -> int:
    """How many bytes of them are in memory."""
    libc = ctypes.CDLL(None, use_errno=True)
    return mmap.PAGESIZE * sum(
        int(np.count_nonzero(_are_resident(libc, first, end))) for first, end in ranges
    )


def without(mappings: Iterable[Range], others: Iterable[Range]) -> list[Range]:
    """The parts of mappings that lie in none of the others."""
    left = sorted(mappings)
    for first, end in others:
        parts = [part for a, b in left for part in ((a, min(b, first)), (max(a, end), b))]
        left = [(a, b) for a, b in dict.fromkeys(parts) if a < b]
    return left


def drop(ranges: Iterable[Range]) -> None:
    """Take pages out of memory: those of a mapped file come back from the file when they are read, all others
    are zeros then."""
    libc = ctypes.CDLL(None, use_errno=True)
    for start, end in ranges:
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
    # Reading others would put them into the page table.
    for first, last in _runs(_are_resident(libc, start, end)):
        n = last - first
        words = (ctypes.c_uint64 * (n * mmap.PAGESIZE // 8)).from_address(
            start + first * mmap.PAGESIZE
        )
        is_zero = np.ctypeslib.as_array(words).reshape(n, -1).max(axis=1) == 0
        for a, b in _runs(is_zero):
            yield start + (first + a) * mmap.PAGESIZE, start + (first + b) * mmap.PAGESIZE


def _are_resident(
    libc: ctypes.CDLL, start: int, end: int
) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    """Whether each page is in memory; none where the kernel does not tell."""
    n_pages = (end - start) // mmap.PAGESIZE
    table = (ctypes.c_ubyte * n_pages)()
    if libc.mincore(ctypes.c_void_p(start), ctypes.c_size_t(end - start), table) != 0:
        return np.zeros(0, np.bool_)
    return (np.ctypeslib.as_array(table) & 1).astype(np.bool_)


def _runs(flags: np.ndarray[tuple[int], np.dtype[np.bool_]]) -> Iterator[Range]:
    """Where flags in a row are true: from the first on, to before the second."""
    edges = np.flatnonzero(np.diff(flags.astype(np.int8), prepend=0, append=0))
    yield from zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True)
