"""The cores of the event loop's thread: not the one whose thread leads the steps of an engine.

The engine's main thread sends tokens between two steps and goes on with the next one, while the engine's
other threads wait for it. Linux lets a thread that is woken run on the core of the one that wakes it. So the
daemon, and then its client, took that core just when the next step was to begin, with all other threads
waiting: 0.5 ms of each token of 9 (SmolLM2-135M, 2 cores of a Zen 4). On another core it takes the place of a
thread that waits anyway.

Only where one engine computes on all cores: with a core to spare, Linux finds that by itself.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable, Hashable
from pathlib import Path

UNKNOWN = -1


def _current_core() -> Callable[[], int]:
    function = getattr(ctypes.CDLL(None), "sched_getcpu", None)
    if function is None:
        return lambda: UNKNOWN
    return ctypes.PYFUNCTYPE(ctypes.c_int)(ctypes.cast(function, ctypes.c_void_p).value or 0)


# The core that the calling thread is on. Other C libraries than glibc and musl may not tell.
current_core = _current_core()


class LoopCore:
    """The cores of the thread that calls, the event loop's. Does nothing until it `is_on`.

    A thread or process that is started by the loop meanwhile begins on its cores: `free` gives those threads
    all of them, `free_process` a process.
    """

    def __init__(self) -> None:
        self.is_on = False
        self._led: dict[Hashable, int] = {}  # the core that leads each engine that computes
        self._left: int | None = None
        self._allowed: frozenset[int] = frozenset()
        self._threads: frozenset[int] = frozenset()  # that began with all cores

    def leave(self, engine: Hashable, core: int, n_threads: int) -> None:
        """An engine computes with so many threads, led by the one on this core."""
        if not self.is_on or self._led.get(engine) == core:
            return
        self._led[engine] = core
        if len(self._led) > 1 or core == UNKNOWN:
            self._free()
            return
        if self._left is None:
            self._allowed = frozenset(os.sched_getaffinity(0))
            self._threads = _threads()
        rest = self._allowed - {core}
        is_gain = core in self._allowed and n_threads >= len(self._allowed)
        if is_gain and rest and _set(0, rest):
            self._left = core
        else:
            self._free()

    def end(self, engine: Hashable) -> None:
        """An engine computes no more, or leaves cores to others."""
        if self._led.pop(engine, None) is not None:
            self._free()

    def allowed(self) -> frozenset[int]:
        """The cores that this process may use."""
        own = frozenset(os.sched_getaffinity(0))
        return own if self._left is None else own | {self._left}

    def free_process(self, pid: int) -> None:
        """Let a process that was just started use all cores that this one may use."""
        if self._left is not None:
            _set(pid, self._allowed)

    def _free(self) -> None:
        if self._left is None:
            return
        self._left = None
        _set(0, self._allowed)
        for thread in _threads() - self._threads:
            _set(thread, self._allowed)


def _threads() -> frozenset[int]:
    return frozenset(int(path.name) for path in Path("/proc/self/task").iterdir())


def _set(pid: int, cores: frozenset[int]) -> bool:
    """False where it has ended, the cores were taken away meanwhile, or a sandbox forbids it: it keeps those
    that it has."""
    try:
        os.sched_setaffinity(pid, cores)
    except OSError:
        return False
    return True


loop_core = LoopCore()
