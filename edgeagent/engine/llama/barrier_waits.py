"""How long the threads of llama.cpp look for each other before they sleep.

Alone, waking a thread that slept at a barrier costs more than it saved: SmolLM2-135M on 2 cores of a Zen 4
generates 104 tokens/s for one client where threads look for long, and 85 where they sleep after 0.1 ms.
Beside other programs it is the other way round: with 8 clients 22 and 47 tokens/s, since the last thread of a
barrier may have no core.

libgomp reads the count once, at its start (`worker_environment`). But it looks only 100 times as
long as it manages more threads than there are processors. So a thread with a team of its own, which sleeps,
switches it over. Source: libgomp, config/linux/wait.h (`do_spin`) and team.c (`gomp_managed_threads`).
"""

from __future__ import annotations

import ctypes
import logging
import os
import threading
from typing import Any

logger = logging.getLogger(__name__)


def _libgomp() -> Any:
    """The library, if llama.cpp has loaded it: builds without OpenMP have barriers of their own."""
    try:
        return ctypes.CDLL("libgomp.so.1", mode=os.RTLD_NOLOAD | os.RTLD_NOW)
    except OSError:
        return None


class BarrierWaits:
    """Switches between long and short waits. One thread at a time; `close()` may be called twice."""

    def __init__(self) -> None:
        self._gomp = _libgomp()
        self._crowd: threading.Thread | None = None
        self._is_over = threading.Event()

    @property
    def are_short(self) -> bool:
        return self._crowd is not None

    def shorten(self, is_contended: bool) -> None:
        """Let threads sleep almost at once, or not. Without libgomp nothing changes."""
        if is_contended == self.are_short or self._gomp is None:
            return
        if not is_contended:
            self.close()
            return
        self._is_over.clear()
        self._crowd = threading.Thread(target=self._crowd_in, name="omp-crowd", daemon=True)
        self._crowd.start()

    def close(self) -> None:
        if self._crowd is not None:
            self._is_over.set()
            self._crowd.join()
            self._crowd = None

    def _crowd_in(self) -> None:
        """Hold a team of more threads than there are processors. It ends with this thread."""
        free = ctypes.cast(ctypes.CDLL(None).free, ctypes.c_void_p)  # of nothing: does nothing
        n_threads = (os.cpu_count() or 1) + 1
        self._gomp.GOMP_parallel(free, None, ctypes.c_uint(n_threads), ctypes.c_uint(0))
        self._is_over.wait()
