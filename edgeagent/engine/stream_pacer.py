"""Passes tokens that came at once on one after another, so that their reader sees text that flows.

A step that verifies drafts, or computes tokens that a schema forces, takes longer than others and brings
several tokens: sent as they come, a copied note or a JSON answer stands still for 50 ms and jumps. So tokens
that came together go on at the rate at which the answer comes, and what is held bridges the next long step:
slower than that rate while less is held than the longest step of late needs, faster while more is. Answers
whose steps bring one token each are never held. The end of an answer brings all that is left.

Each piece wakes the daemon on the cores that the engine computes on. So pieces of a stream have a least
distance, which grows with the number of streams, and nothing is held back while other programs use cores.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Callable, Iterable
from functools import reduce

from edgeagent.types.answer import TokenChunk

LEAST_GAP_S = 0.003
# What is held bridges steps of up to this. It is also what readers notice.
LONGEST_S = 0.1
# Longer than any step with tokens takes: a pause, which tells nothing of the rate.
PAUSE_S = 0.25
# What a step takes before one is known.
UNKNOWN_S = 0.02
N_STEPS = 16
N_ARRIVALS = 24
# How much slower than the rate an answer goes on of which nothing is left.
SLOWER = 0.15
# Pieces that are due so soon after others go with them.
TOGETHER_S = 0.002

Key = tuple[int, int]  # request and number of the answer


class Stream:
    """One answer: when its tokens came, and those that wait to go on at `due_s`."""

    def __init__(self, now_s: float) -> None:
        self.held: deque[TokenChunk] = deque()
        self.due_s = 0.0
        self._came_s = now_s
        self._arrivals: deque[tuple[float, int]] = deque(maxlen=N_ARRIVALS)

    def count(self, now_s: float, n: int) -> None:
        """`n` tokens came."""
        took_s, self._came_s = now_s - self._came_s, now_s
        if took_s <= PAUSE_S:
            self._arrivals.append((took_s, n))

    def hold(self, chunks: Iterable[TokenChunk], now_s: float) -> None:
        if not self.held:
            self.due_s = now_s
        self.held.extend(chunks)

    def take(self, now_s: float, longest_s: float, least_gap_s: float) -> TokenChunk:
        """What goes on now; sets when the next does."""
        n, gap_s = self._pace(longest_s, least_gap_s)
        chunks = [self.held.popleft() for _ in range(min(n, len(self.held)))]
        _, next_gap_s = self._pace(longest_s, least_gap_s)
        self.due_s = max(self.due_s, now_s - gap_s / 2) + next_gap_s  # in time again
        return joined(chunks)

    def _pace(self, longest_s: float, least_gap_s: float) -> tuple[int, float]:
        """How many tokens a piece has, and the seconds to the one before."""
        n = len(self.held)
        n_came = sum(tokens for _, tokens in self._arrivals)
        token_s = longest_s / (n + 1)  # of what came first nobody knows the rate
        if n_came:
            token_s = sum(took_s for took_s, _ in self._arrivals) / n_came
        n_bridging = max(1.0, longest_s / token_s) if token_s else 1.0
        share = 1 + SLOWER * (1 - n / n_bridging) if n <= n_bridging else n_bridging / n
        gap_s = token_s * share
        n_each = max(1, math.ceil(least_gap_s / gap_s)) if gap_s else max(1, n)
        return n_each, gap_s * n_each


def joined(chunks: Iterable[TokenChunk]) -> TokenChunk:
    return reduce(TokenChunk.and_then, chunks)


class StreamPacer:
    """The streams of one engine. Event loop's thread only. `deliver` passes a chunk to a request."""

    def __init__(self, deliver: Callable[[int, TokenChunk], None]) -> None:
        self._deliver = deliver
        self._streams: dict[Key, Stream] = {}  # that are read live
        self._steps: deque[float] = deque(maxlen=N_STEPS)
        self._came_s = float("-inf")
        self._timer: asyncio.TimerHandle | None = None

    def pass_on(
        self,
        chunks: list[tuple[int, TokenChunk]],
        now_s: float,
        is_live: Callable[[int], bool],
    ) -> None:
        """Pass the chunks of a step on, or hold them. Those of requests that are not read live go on at
        once."""
        took_s, self._came_s = now_s - self._came_s, now_s
        if took_s <= PAUSE_S:
            self._steps.append(took_s)
        by_answer: dict[Key, list[TokenChunk]] = {}
        for request_id, chunk in chunks:
            by_answer.setdefault((request_id, chunk.index), []).append(chunk)
        for key, group in by_answer.items():
            stream = self._streams.get(key)
            if stream is None:
                stream = self._streams[key] = Stream(now_s)
            else:
                stream.count(now_s, len(group))
            is_text, live = all(chunk.is_text for chunk in group), is_live(key[0])
            if is_text and live and (stream.held or len(group) > 1):
                stream.hold(group, now_s)
                continue
            if stream.held:
                group = [joined(stream.held), *group]
                stream.held.clear()
            # Who is gone or read at once needs no state; nor does an answer that has ended.
            if not live or group[-1].finish is not None:
                self._streams.pop(key, None)
            for chunk in [joined(group)] if is_text else group:
                self._deliver(key[0], chunk)
        self._release(now_s)

    def flush_all(self) -> None:
        """Pass on what is held."""
        for key, stream in list(self._streams.items()):
            if stream.held:
                self._deliver(key[0], joined(stream.held))
        self._streams.clear()
        self._set_timer()

    def drop(self, request_id: int) -> None:
        """Nobody reads the rest."""
        for key in [key for key in self._streams if key[0] == request_id]:
            del self._streams[key]

    def _release(self, now_s: float) -> None:
        longest_s = min(LONGEST_S, max(self._steps, default=UNKNOWN_S))
        least_gap_s = min(LONGEST_S, LEAST_GAP_S * len(self._streams))
        for key, stream in list(self._streams.items()):
            if stream.held and stream.due_s <= now_s + TOGETHER_S and key in self._streams:
                self._deliver(key[0], stream.take(now_s, longest_s, least_gap_s))
        self._set_timer()

    def _on_time(self) -> None:
        self._timer = None
        self._release(asyncio.get_running_loop().time())

    def _set_timer(self) -> None:
        due_s = min((one.due_s for one in self._streams.values() if one.held), default=None)
        if self._timer is not None:
            if due_s is not None and self._timer.when() <= due_s:
                return  # it looks again then
            self._timer.cancel()
            self._timer = None
        if due_s is not None:
            self._timer = asyncio.get_running_loop().call_at(due_s, self._on_time)
