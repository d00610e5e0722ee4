"""Passes tokens that came at once on one after another, so that their reader sees text that flows.

A step that verifies drafts, or computes tokens that a schema forces, takes longer than others and brings
several tokens: sent as they come, a copied note or a JSON answer stands still for 50 ms and jumps. So the
first of them goes on at once and the others while the next step is computed. None waits longer than a step
takes, by the engine's estimate and the last ones, and the end of an answer brings all that is left.

Each piece wakes the daemon on the cores that the engine computes on. So pieces of a stream have a least
distance, which grows with the number of streams, and nothing is held back while other programs use cores.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import reduce

from edgeagent.types.answer import TokenChunk

LEAST_GAP_S = 0.008
# What takes longer was a pause, and no step that the next ones are like. It is also what readers notice.
LONGEST_S = 0.1
N_STEPS = 6
# Pieces that are due so soon after others go with them.
TOGETHER_S = 0.002

Key = tuple[int, int]  # request and number of the answer


@dataclass
class Held:
    """The tokens of one answer that wait: `n_each` of them go on at `due_s`, and then every `spacing_s`."""

    chunks: deque[TokenChunk] = field(default_factory=deque)
    passed_s: float = 0.0
    due_s: float = 0.0
    spacing_s: float = 0.0
    n_each: int = 1

    def spread(self, hold_s: float, least_gap_s: float) -> None:
        """Let what is held go on within `hold_s`, in pieces at least so far apart."""
        n = len(self.chunks)
        self.n_each = max(1, math.ceil(n * least_gap_s / max(hold_s, least_gap_s)))
        self.spacing_s = max(least_gap_s, hold_s / math.ceil(n / self.n_each))
        self.due_s = self.passed_s + self.spacing_s

    def take(self, now_s: float) -> TokenChunk:
        """The tokens that go on now, as one chunk."""
        n = min(self.n_each, len(self.chunks))
        self.passed_s = now_s
        self.due_s = max(self.due_s + self.spacing_s, now_s + self.spacing_s / 2)  # in time again
        return joined([self.chunks.popleft() for _ in range(n)])


def joined(chunks: Iterable[TokenChunk]) -> TokenChunk:
    return reduce(TokenChunk.and_then, chunks)


class StreamPacer:
    """The streams of one engine. Event loop's thread only.

    `deliver` passes a chunk to a request. Each step is given to `count`, and to `pass_on` where an answer has
    several chunks or something `is_holding`.
    """

    def __init__(self, deliver: Callable[[int, TokenChunk], None]) -> None:
        self._deliver = deliver
        self._held: dict[Key, Held] = {}
        self._steps: deque[float] = deque(maxlen=N_STEPS)
        self._came_s = float("-inf")
        self._timer: asyncio.TimerHandle | None = None

    @property
    def is_holding(self) -> bool:
        return bool(self._held)

    def count(self, now_s: float) -> None:
        """A step has ended."""
        took_s, self._came_s = now_s - self._came_s, now_s
        if took_s <= LONGEST_S:
            self._steps.append(took_s)

    def pass_on(
        self,
        chunks: list[tuple[int, TokenChunk]],
        now_s: float,
        next_s: float,
        is_live: Callable[[int], bool],
        n_streams: int,
    ) -> None:
        """Pass the chunks of a step on, or hold them. The next step takes `next_s`, as far as is known. Those
        of requests that are not read live go on at once."""
        by_answer: dict[Key, list[TokenChunk]] = {}
        for request_id, chunk in chunks:
            by_answer.setdefault((request_id, chunk.index), []).append(chunk)
        hold_s = max(next_s, max(self._steps, default=0.0))
        for key, group in by_answer.items():
            is_text = all(chunk.is_text for chunk in group)
            if is_text and is_live(key[0]):
                self._hold(key, group, now_s, hold_s, LEAST_GAP_S * n_streams)
                continue
            self._flush(key)
            for chunk in [joined(group)] if is_text else group:
                self._deliver(key[0], chunk)
        self._set_timer()

    def _hold(
        self, key: Key, chunks: list[TokenChunk], now_s: float, hold_s: float, least_gap_s: float
    ) -> None:
        held = self._held.get(key)
        if held is not None:
            held.chunks.extend(chunks)
            held.spread(hold_s, least_gap_s)
            return
        self._deliver(key[0], chunks[0])
        if len(chunks) > 1:
            # The last of them goes on before the next step ends.
            held = self._held[key] = Held(deque(chunks[1:]), passed_s=now_s)
            held.spread(hold_s * (len(chunks) - 1) / len(chunks), least_gap_s)

    def _flush(self, key: Key) -> None:
        held = self._held.pop(key, None)
        if held is not None:
            self._deliver(key[0], joined(held.chunks))

    def flush_all(self) -> None:
        """Pass on what is held."""
        for key in list(self._held):
            self._flush(key)
        self._set_timer()

    def drop(self, request_id: int) -> None:
        """Nobody reads the rest."""
        for key in [key for key in self._held if key[0] == request_id]:
            del self._held[key]

    def _release(self) -> None:
        self._timer = None
        now_s = asyncio.get_running_loop().time()
        for key, held in list(self._held.items()):
            if held.due_s <= now_s + TOGETHER_S and key in self._held:
                self._deliver(key[0], held.take(now_s))
                if not held.chunks:
                    self._held.pop(key, None)
        self._set_timer()

    def _set_timer(self) -> None:
        due_s = min((held.due_s for held in self._held.values()), default=None)
        if self._timer is not None:
            if due_s is not None and self._timer.when() <= due_s:
                return  # it looks again then
            self._timer.cancel()
            self._timer = None
        if due_s is not None:
            self._timer = asyncio.get_running_loop().call_at(due_s, self._release)
