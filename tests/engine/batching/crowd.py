"""More clients than places, by a clock of its own: who is refused, is told a time, and comes back.

The engine is four slots that share a rate of tokens; refusals and times are those of `Backlog` and
`WaitEstimate`. As over HTTP, times are told in whole seconds.
"""

from __future__ import annotations

import heapq
import math
import random
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from edgeagent.engine.batching.backlog import Backlog
from edgeagent.engine.batching.wait_estimate import MAX_RETRY_AFTER_S, WaitEstimate

N_SLOTS, QUEUE_LIMIT = 4, 8
N_PROMPT, N_GENERATED = 40, 32
STEP_S = 0.02
WAY_S = 0.02  # between an answer and the client's next request
RIGHT = 0.3
BEFORE_S = 20.0  # of one client alone, in which the rate is measured


class Crowd:
    """`rate(seconds)`: requests a second that the engine gets done; `seconds` count from the crowd's arrival.
    `told` has (seconds told, seconds until it was let in) of each request that was refused first."""

    def __init__(self, n_clients: int, rate: Callable[[float], float], seed: int = 1) -> None:
        self._now_s = 0.0
        self._rate = rate
        self._rng = random.Random(seed)
        self._estimate = WaitEstimate(lambda: self._now_s)
        config: Any = SimpleNamespace(queue_limit=QUEUE_LIMIT, model_id="m")
        self._backlog = Backlog(config, self._estimate)
        self._n_open: dict[int, int] = {}
        self._left: dict[int, float] = {}  # tokens of running requests
        self._asks: list[tuple[float, int, int]] = []  # when, client, how often refused
        self._refused: dict[int, tuple[float, float]] = {}  # when first, and what was told
        self.told: list[tuple[float, float]] = []
        self.n_answered = 0
        self.longest_queue = 0
        while self._now_s < BEFORE_S:
            self._now_s += STEP_S
            self._estimate.count(round(rate(-1) * (N_PROMPT + N_GENERATED) * STEP_S))
            self._estimate.end(N_PROMPT, N_GENERATED)
        for client in range(n_clients):
            self._ask_in(self._rng.uniform(0, 0.3), client, 0)

    @property
    def share_right(self) -> float:
        n_right = sum(abs(let_in - told) <= RIGHT * told for told, let_in in self.told)
        return n_right / len(self.told)

    def run(self, seconds: float) -> None:
        while self._now_s < BEFORE_S + seconds:
            while self._asks and self._asks[0][0] <= self._now_s:
                self._ask(*heapq.heappop(self._asks)[1:])
            self._step()
            self._now_s += STEP_S

    def _ask_in(self, wait_s: float, client: int, n_refused: int) -> None:
        heapq.heappush(self._asks, (self._now_s + wait_s, client, n_refused))

    def _ask(self, client: int, n_refused: int) -> None:
        spec = SimpleNamespace(scope="a", is_retry=n_refused > 0, priority=0, n_answers=1)
        request = SimpleNamespace(
            request_id=client, spec=spec, deadline_s=None, arrived_s=self._now_s
        )
        sequence: Any = SimpleNamespace(request=request, started_s=None)
        self._n_open[client] = 1
        refused, error = self._backlog.refused_for([sequence], self._n_open, self._now_s)
        if error is None:
            if client in self._refused:
                since_s, told_s = self._refused.pop(client)
                self.told.append((told_s, self._now_s - since_s))
            self._backlog.add([sequence])
            self.longest_queue = max(self.longest_queue, len(self._backlog))
            return
        assert refused == [sequence] and error.retry_after_s is not None
        told_s = min(MAX_RETRY_AFTER_S, max(1.0, math.ceil(error.retry_after_s)))
        self._refused.setdefault(client, (self._now_s, told_s))
        self._ask_in(told_s + self._rng.uniform(0.5, 2) * WAY_S, client, n_refused + 1)

    def _step(self) -> None:
        for sequence in list(self._backlog)[: N_SLOTS - len(self._left)]:
            self._backlog.remove(sequence)
            self._left[sequence.request.request_id] = N_PROMPT + N_GENERATED
        if not self._left:
            return
        n_tokens = self._rate(self._now_s - BEFORE_S) * (N_PROMPT + N_GENERATED) * STEP_S
        n_tokens *= math.exp(self._rng.gauss(0, 0.3))
        self._estimate.count(round(n_tokens))
        share = n_tokens / len(self._left)
        for client in list(self._left):
            self._left[client] -= share
            if self._left[client] <= 0:
                del self._left[client]
                self._estimate.end(N_PROMPT, N_GENERATED)
                self.n_answered += 1
                self._ask_in(self._rng.uniform(0.5, 2) * WAY_S, client, 0)
