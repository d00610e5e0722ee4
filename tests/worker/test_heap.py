"""The daemon's C heap, looked at through glibc's own account of it."""

from __future__ import annotations

import ctypes
import gc
import re
import subprocess
import sys

import pytest

from edgeagent.worker.heap import (
    map_large_blocks,
    return_free_pages,
    use_one_arena,
    without_collections,
)

is_glibc = hasattr(ctypes.CDLL(None), "mallopt")

THREADS = """
import ctypes, os, sys, threading
from edgeagent.worker.heap import use_one_arena
if sys.argv[1] == "one":
    assert use_one_arena()
barrier = threading.Barrier(5)
def work():
    kept = [bytes(5000) for _ in range(100)]
    barrier.wait()
    barrier.wait()
threads = [threading.Thread(target=work) for _ in range(4)]
for thread in threads: thread.start()
barrier.wait()
libc = ctypes.CDLL(None)
libc.fdopen.restype = ctypes.c_void_p
file = ctypes.c_void_p(libc.fdopen(1, b"w"))
libc.malloc_info(0, file)
libc.fflush(file)
barrier.wait()
"""


@pytest.mark.skipif(not is_glibc, reason="another C library than glibc")
def test_threads_share_one_arena():
    def n_arenas(which: str) -> int:
        done = subprocess.run(
            [sys.executable, "-c", THREADS, which], capture_output=True, text=True, check=True
        )
        return len(re.findall(r'<heap nr="\d+">', done.stdout))

    assert n_arenas("one") == 1
    assert n_arenas("several") > 1


LARGE = """
import sys
from edgeagent.worker.heap import map_large_blocks
if sys.argv[1] == "fixed":
    assert map_large_blocks()
def heap_bytes():
    with open("/proc/self/maps") as lines:
        spans = [line.split()[0].split("-") for line in lines if line.rstrip().endswith("[heap]")]
    return sum(int(end, 16) - int(start, 16) for start, end in spans)
bytearray(4 << 20)  # freed: from now on glibc would take blocks of this size from the heap
before = heap_bytes()
kept = [bytearray(1 << 20) for _ in range(16)]
print(heap_bytes() - before)
"""


@pytest.mark.skipif(not is_glibc, reason="another C library than glibc")
def test_large_blocks_stay_out_of_the_heap_after_one_was_freed():
    def n_grown(which: str) -> int:
        done = subprocess.run(
            [sys.executable, "-c", LARGE, which], capture_output=True, text=True, check=True
        )
        return int(done.stdout)

    assert n_grown("fixed") < 1 << 20
    assert n_grown("as it is") >= 15 << 20


@pytest.mark.skipif(not is_glibc, reason="another C library than glibc")
def test_freed_pages_go_back_to_the_kernel():
    kept = [bytes(5000) for _ in range(4000)]
    last = bytes(5000)  # keeps the top of the heap from shrinking by itself
    del kept
    assert return_free_pages()
    assert last == bytes(5000)


def test_a_c_library_without_these_functions_is_left_alone(monkeypatch):
    monkeypatch.setattr(ctypes, "CDLL", lambda name: object())
    assert not use_one_arena()
    assert not return_free_pages()
    assert not map_large_blocks()


def test_what_was_imported_is_left_out_of_later_collections():
    n_before = gc.get_freeze_count()
    with without_collections():
        assert not gc.isenabled()
        kept = [[] for _ in range(100)]
    assert gc.isenabled() and gc.get_freeze_count() > n_before + len(kept)
