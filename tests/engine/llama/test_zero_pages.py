"""Memory that holds zeros is given back, and nothing else is."""

from __future__ import annotations

import ctypes
import mmap
from collections.abc import Iterator

import pytest

from edgeagent.engine.llama import zero_pages

PAGE = mmap.PAGESIZE
EDGE = zero_pages.EDGE_BYTES // PAGE
N_PAGES = (zero_pages.LEAST_BYTES + zero_pages.BLOCK_BYTES) // PAGE + 5


@pytest.fixture
def memory() -> Iterator[mmap.mmap]:
    made = mmap.mmap(-1, N_PAGES * PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    yield made
    made.close()


def range_of(memory: mmap.mmap) -> tuple[int, int]:
    first = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    return first, first + len(memory)


def n_resident(memory: mmap.mmap) -> int:
    first, end = range_of(memory)
    table = (ctypes.c_ubyte * N_PAGES)()
    assert (
        ctypes.CDLL(None).mincore(ctypes.c_void_p(first), ctypes.c_size_t(end - first), table) == 0
    )
    return sum(flag & 1 for flag in table)


def test_pages_of_zeros_are_given_back_and_what_is_written_stays(memory: mmap.mmap):
    first, end = range_of(memory)
    ctypes.memset(first, 0, end - first)
    middle = N_PAGES // 2 * PAGE
    written = {0: 1, PAGE - 1: 2, middle + 13: 3, len(memory) - 1: 4}
    for place, value in written.items():
        memory[place] = value
    # The pages that were written, and the ends of both runs of zeros between them.
    n_kept = len({place // PAGE for place in written}) + 4 * EDGE
    given = zero_pages.give_back([range_of(memory)])
    assert zero_pages.n_bytes(given) == (N_PAGES - n_kept) * PAGE
    assert n_resident(memory) == n_kept
    assert all(memory[place] == value for place, value in written.items())
    place = middle - (EDGE + 3) * PAGE
    assert memory[place] == 0
    memory[place] = 5
    assert memory[place : place + 2] == b"\5\0"
    assert n_resident(memory) == n_kept + 1


def test_short_runs_of_zeros_stay_where_they_may_be_memory_for_small_objects(memory: mmap.mmap):
    first, end = range_of(memory)
    ctypes.memset(first, 1, end - first)
    ctypes.memset(first + 9 * PAGE, 0, 2 * zero_pages.EDGE_BYTES)
    assert zero_pages.give_back([range_of(memory)]) == []
    assert n_resident(memory) == N_PAGES


def test_pages_that_were_never_used_are_not_even_read(memory: mmap.mmap):
    memory[5 * PAGE] = 1
    assert zero_pages.give_back([range_of(memory)]) == []
    assert n_resident(memory) == 1


def test_small_mappings_are_left_alone(memory: mmap.mmap):
    first, end = range_of(memory)
    ctypes.memset(first, 0, end - first)
    assert zero_pages.give_back([(first, first + zero_pages.LEAST_BYTES - PAGE)]) == []
    assert n_resident(memory) == N_PAGES


def test_only_what_lies_in_a_buffer_of_known_size_is_given_back_again(memory: mmap.mmap):
    first, end = range_of(memory)
    ctypes.memset(first, 0, end - first)
    given = zero_pages.give_back([range_of(memory)])
    assert zero_pages.of_sizes(given, [1 << 20, len(memory) - PAGE]) == given
    assert zero_pages.of_sizes(given, [len(memory) - 8 * PAGE, len(memory) + 8 * PAGE]) == []
    assert zero_pages.of_sizes(given, []) == []
    memory[len(memory) // 2] = 7
    assert zero_pages.n_resident(given) == PAGE
    zero_pages.drop(given)
    assert zero_pages.n_resident(given) == memory[len(memory) // 2] == 0


@pytest.mark.parametrize(
    ("others", "left"),
    [
        ([], [(10, 20), (30, 40)]),
        ([(10, 20), (30, 40)], []),
        ([(12, 15)], [(10, 12), (15, 20), (30, 40)]),
        ([(0, 11), (19, 31)], [(11, 19), (31, 40)]),
        ([(20, 30), (40, 50), (0, 10)], [(10, 20), (30, 40)]),
    ],
)
def test_what_is_new_is_what_other_mappings_do_not_have(others, left):
    assert zero_pages.without([(30, 40), (10, 20)], others) == left
