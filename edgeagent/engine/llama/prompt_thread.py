"""A thread that computes prompts in a context of its own, while the engine thread computes answers.

Two threads that each compute alone lose nothing at barriers, and attention wastes no part of its tiles: 128
tokens of a prompt, and the steps of one answer that are taken meanwhile, take 0.83 of the time that both take
one after the other; of seven answers 0.97 (SmolLM2-135M Q4_1, 2 cores of a Zen 4). And a chunk costs the same
for each token however small it is, so that answers go on, and need no chunk that suits their gaps.
"""

from __future__ import annotations

import os
import queue
import sys
import threading
import time
from contextlib import suppress
from typing import Any

import numpy as np

from edgeagent.engine.llama.batch import Row, StepAborted
from edgeagent.engine.llama.prompt_context import PromptContext
from edgeagent.errors import EngineFailed

# How much lower its priority is than that of the engine thread: where there are fewer cores than threads, the
# step of the answers has a core of its own, and prompts share another. Three threads of equal priority moved
# between two cores, and a step took 27 or 54 ms (mixed types, 2 cores of a Zen 4).
NICER = 5
LOWEST = 19


class PromptThread:
    """Runs one chunk of a prompt at a time. Engine thread only; `ended` is set when a chunk has ended."""

    def __init__(self, context: PromptContext, ended: threading.Event) -> None:
        self.context = context
        self._ended = ended
        self._jobs: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._idle = threading.Event()
        self._idle.set()
        self._error: Exception | None = None
        self.took_s = 0.0  # of the last chunk

    @property
    def is_busy(self) -> bool:
        """Whether a chunk runs, or has run and was not fetched."""
        return self.context.is_running

    @property
    def has_ended(self) -> bool:
        return self.is_busy and self._idle.is_set()

    @property
    def n_tokens(self) -> int:
        """Tokens of the last chunk, with those that fill it up."""
        return self.context.n_tokens

    def holds(self, row: Row) -> bool:
        """Whether the tokens before a row are in its context already."""
        return row.first_pos > 0 and self.context.length(row.seq_id) == row.first_pos

    def start(self, row: Row, n_least: int = 0) -> bool:
        """Begin to compute a row, in a chunk of at least `n_least` tokens if so many fit. False where the row
        does not fit."""
        if not self.context.can_take(row) or not self.context.prepare([row], n_least):
            return False
        self.context.set_threads(1)
        self.context.arm()
        self.context.is_running = True
        self._error = None
        self._idle.clear()
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="prompts", daemon=True)
            self._thread.start()
        self._jobs.put(None)
        return True

    def fetch(self) -> np.ndarray[Any, Any] | None:
        """Put the cells of the chunk that `has_ended` into the main cache, which has room for them. Returns
        logits as `PromptContext.compute`; None also where the chunk was aborted or failed."""
        self._idle.wait()
        self.context.is_running = False
        if self._error is None:
            return self.context.deliver()
        self.context.give_up()
        if not isinstance(self._error, (StepAborted, EngineFailed)):
            raise self._error
        return None

    def drop(self) -> None:
        """End the chunk that runs and forget it."""
        self.context.abort()
        self._idle.wait()
        self.context.is_running = False
        self.context.give_up()

    def _work(self) -> None:
        _give_way()
        while True:
            self._jobs.get()
            started = time.monotonic()
            try:
                self.context.run()
            except Exception as exc:  # raised on the engine thread
                self._error = exc
            self.took_s = time.monotonic() - started
            self._idle.set()
            self._ended.set()


def _give_way() -> None:
    """Lower the priority of the calling thread. Elsewhere than on Linux it would be that of the process."""
    if sys.platform != "linux":
        return
    nice = os.getpriority(os.PRIO_PROCESS, 0)
    with suppress(OSError):  # refused by the rules of a system: prompts are computed all the same
        os.setpriority(os.PRIO_PROCESS, 0, min(LOWEST, nice + NICER))
