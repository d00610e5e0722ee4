"""Buffers chunks before they are sent: first and last chunks are sent at once, others about once per
interval.

A model that draws a token every millisecond or two would wake the daemon and the client as often, on the
cores that it computes on, for text that nobody reads that fast. Each answer adds to that cost, so the
interval grows with the number of answers: with eight it is twice as long. Chunks can only be sent between two
steps, and are with the step that ends nearest to the end of the interval: with steps of 38 ms and an interval
of 40 gaps would otherwise be 76 ms long.

Several tokens of an answer from one step, which were drafted or forced, stay chunks of their own: the daemon
sends them one after another while the next steps are computed (`engine/stream_pacer.py`).
"""

from __future__ import annotations

import time
from collections.abc import Callable

from edgeagent.types.answer import TokenChunk

FEW_ANSWERS = 4

Chunks = list[tuple[int, TokenChunk]]
Emit = Callable[[Chunks], None]


class ChunkBuffer:
    """Collects the chunks of several steps and sends them as one frame. Engine thread only."""

    def __init__(self, emit: Emit, interval_s: float) -> None:
        self._emit = emit
        self._interval_s = interval_s
        self._chunks: Chunks = []
        self._sent_s = self._asked_s = float("-inf")
        self._is_urgent = False
        self._n_collected = 0  # chunks of steps before this one

    def put(self, request_id: int, chunk: TokenChunk) -> None:
        """Add a chunk. The last chunk of an answer is sent with this step."""
        self._chunks.append((request_id, chunk))
        self._is_urgent |= chunk.finish is not None

    def hurry(self) -> None:
        """Send with this step, because a first chunk is in the buffer."""
        self._is_urgent = True

    def flush(self, n_running: int) -> None:
        """Send the chunks if the interval for this many running answers has passed, or will before more than
        half of a step like the last one, or if none is running. Called once for each step."""
        now = time.perf_counter()
        step_s, self._asked_s = now - self._asked_s, now
        if not self._chunks:
            return
        interval_s = self._interval_s * max(1.0, n_running / FEW_ANSWERS)
        is_due = now - self._sent_s + step_s / 2 >= interval_s
        if n_running == 0 or self._is_urgent or is_due:
            chunks, self._chunks = self._chunks, []
            if self._n_collected:
                chunks = merged(chunks)
            self._sent_s, self._is_urgent, self._n_collected = now, False, 0
            self._emit(chunks)
        else:
            self._n_collected = len(self._chunks)


def merged(chunks: Chunks) -> Chunks:
    """One chunk for each answer, in the order of their first chunks."""
    if len(chunks) == 1:
        return chunks
    found: dict[tuple[int, int], TokenChunk] = {}
    for request_id, chunk in chunks:
        key = (request_id, chunk.index)
        if (earlier := found.get(key)) is not None:
            chunk = earlier.and_then(chunk)
        found[key] = chunk
    return [(request_id, chunk) for (request_id, _), chunk in found.items()]
