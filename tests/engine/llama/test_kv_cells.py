"""Pages for the contents of KV cells."""

from __future__ import annotations

import ctypes
import mmap
import sys

import pytest

from edgeagent.engine.llama import kv_cells

N_PAGES = 64


def resident(pages: mmap.mmap) -> int:
    """How many pages of a mapping are in memory."""
    table = (ctypes.c_ubyte * N_PAGES)()
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.mincore(kv_cells.address_of(pages), ctypes.c_size_t(len(pages)), table) == 0
    return sum(one & 1 for one in table)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux fills mappings when they are made")
def test_pages_are_there_before_they_are_written() -> None:
    pages = kv_cells.new_pages(N_PAGES * mmap.PAGESIZE)
    assert resident(pages) == N_PAGES
    pages[:4] = b"abcd"
    assert pages[:5] == b"abcd\0"


def test_there_is_a_page_for_nothing() -> None:
    assert len(kv_cells.new_pages(0)) == 1


def test_a_store_keeps_its_pages_until_more_are_needed() -> None:
    store = kv_cells.PageStore()
    first = store.room(2 * mmap.PAGESIZE)
    assert store.room(mmap.PAGESIZE) is first
    assert len(store.room(3 * mmap.PAGESIZE)) == 3 * mmap.PAGESIZE
