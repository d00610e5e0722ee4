"""Which cores the event loop's thread has while engines compute."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from edgeagent.worker import loop_core as module
from edgeagent.worker.loop_core import UNKNOWN, LoopCore, current_core

CORES = frozenset({0, 1, 2, 3})


class Kernel:
    """The cores of the threads and processes of a machine, by number; 0 is the calling thread."""

    def __init__(self) -> None:
        self.cores = {0: CORES, 11: CORES}

    def sched_getaffinity(self, pid: int) -> frozenset[int]:
        return self.cores[pid]

    def sched_setaffinity(self, pid: int, cores: frozenset[int]) -> None:
        assert cores
        if pid not in self.cores:
            raise ProcessLookupError
        self.cores[pid] = frozenset(cores)

    @property
    def own(self) -> set[int]:
        return set(self.cores[0])


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> Kernel:
    kernel = Kernel()
    monkeypatch.setattr(module, "os", kernel)
    monkeypatch.setattr(module, "_threads", lambda: frozenset(kernel.cores) - {0})
    return kernel


@pytest.fixture
def loop(kernel: Kernel) -> LoopCore:
    loop = LoopCore()
    loop.is_on = True
    return loop


def test_the_loop_leaves_the_core_that_leads_an_engine_and_comes_back(kernel, loop):
    loop.leave("a", 2, 4)
    assert kernel.own == {0, 1, 3}
    assert loop.allowed() == CORES
    loop.leave("a", 0, 4)  # its thread has moved
    assert kernel.own == {1, 2, 3}
    loop.end("a")
    assert kernel.own == CORES
    loop.end("a")
    assert kernel.own == CORES


@pytest.mark.parametrize(
    "core, n_threads, why",
    [(1, 3, "a core is to spare"), (UNKNOWN, 4, "nobody knows"), (7, 4, "not one of ours")],
)
def test_the_loop_stays_where_it_gains_nothing(kernel, loop, core, n_threads, why):
    loop.leave("a", core, n_threads)
    assert kernel.own == CORES, why


def test_it_does_nothing_unless_it_is_on(kernel):
    LoopCore().leave("a", 1, 4)
    assert kernel.own == CORES


def test_two_engines_at_once_leave_no_core_to_choose(kernel, loop):
    loop.leave("a", 1, 4)
    loop.leave("b", 2, 2)
    assert kernel.own == CORES
    loop.end("b")
    loop.leave("a", 3, 4)
    assert kernel.own == {0, 1, 2}


def test_the_only_core_is_never_left(kernel, loop):
    kernel.cores[0] = frozenset({1})
    loop.leave("a", 1, 1)
    assert kernel.own == {1}


def test_a_sandbox_that_forbids_it_changes_nothing(kernel, loop, monkeypatch):
    def forbid(pid: int, cores: frozenset[int]) -> None:
        raise PermissionError

    monkeypatch.setattr(kernel, "sched_setaffinity", forbid)
    loop.leave("a", 1, 4)
    assert loop.allowed() == kernel.own == CORES
    loop.end("a")


def test_what_the_loop_starts_meanwhile_gets_all_cores(kernel, loop):
    loop.leave("a", 1, 4)
    kernel.cores |= {12: kernel.cores[0], 900: kernel.cores[0]}
    loop.free_process(900)
    loop.free_process(901)  # has ended
    assert kernel.cores[900] == CORES
    del kernel.cores[900]
    loop.end("a")
    assert kernel.cores == {0: CORES, 11: CORES, 12: CORES}


@pytest.mark.skipif(sys.platform != "linux", reason="asks Linux")
def test_a_thread_knows_its_core_and_threads_are_found():
    code = (
        "from edgeagent.worker.loop_core import current_core, _threads; import os\n"
        "core = min(os.sched_getaffinity(0)); os.sched_setaffinity(0, {core})\n"
        "print(current_core() == core, os.getpid() in _threads())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True", "True"]
    assert current_core() in range(os.cpu_count() or 1)
