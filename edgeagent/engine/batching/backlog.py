"""The sequences that wait for a slot, and which requests are not to wait at all."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

from edgeagent.engine.batching.scheduler_views import displaced_by
from edgeagent.engine.batching.sequence import Request, Sequence
from edgeagent.engine.batching.wait_estimate import WaitEstimate
from edgeagent.errors import DeadlineExceeded, EdgeAgentError, QueueFull, QueueTimeout
from edgeagent.types.engine_config import EngineConfig
from edgeagent.types.generation import GenerateSpec
from edgeagent.worker.refusals import (
    deadline_exceeded,
    deadline_hopeless,
    queue_full,
    queue_timeout,
)

# The part of the queue that is kept for refused requests that are about to come back. In a simulation of 200
# clients for 4 slots and 8 places (tests/engine/batching/crowd.py), the time that was told was right within
# 30% for 70% of them with half of the queue and a margin of 1.3, for 87% with this and 1.4. With more, slots
# stay empty where clients do not say that they come back.
KEPT_SHARE = 0.75


def full(config: EngineConfig, estimate: WaitEstimate, spec: GenerateSpec) -> QueueFull:
    """The refusal of a request that finds no place. Any thread."""
    retry_after_s = estimate.retry_after_s(spec.scope, has_waited=spec.is_retry)
    return queue_full(config.model_id, config.queue_limit, retry_after_s=retry_after_s)


class Backlog:
    """Waiting sequences in order of arrival; preempted ones come first. Engine thread only."""

    def __init__(self, config: EngineConfig, estimate: WaitEstimate) -> None:
        self._config = config
        self._estimate = estimate
        self._waiting: deque[Sequence] = deque()

    def __iter__(self) -> Iterator[Sequence]:
        return iter(self._waiting)

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, sequences: list[Sequence]) -> None:
        self._waiting.extend(sequences)

    def put_back(self, seq: Sequence) -> None:
        """A preempted sequence waits again."""
        self._waiting.appendleft(seq)

    def remove(self, seq: Sequence) -> None:
        self._waiting.remove(seq)

    def refused_for(
        self, sequences: list[Sequence], n_open: dict[int, int], now: float
    ) -> tuple[list[Sequence], EdgeAgentError | None]:
        """Which request is refused when that of `sequences` comes, and why: none, this one, or in a full
        queue another one, which is taken out of the queue and of `n_open`, the answers that each request has
        still to end."""
        request = sequences[0].request
        if (hopeless := self._hopeless(request, now)) is not None:
            return sequences, hopeless
        scope = request.spec.scope
        if request.spec.is_retry:
            self._estimate.came_back(scope)
        if not self._is_full(0 if request.spec.is_retry else self._estimate.n_due(scope)):
            return [], None
        displaced = displaced_by(request.spec.scope, self._waiting, n_open)
        for seq in displaced:
            self._waiting.remove(seq)
            n_open.pop(seq.request.request_id, None)
        refused = displaced or sequences
        return refused, full(self._config, self._estimate, refused[0].request.spec)

    def _is_full(self, n_kept: int) -> bool:
        """Whether there is no place beside `n_kept` that are kept for others, at most `KEPT_SHARE` of all."""
        n_waiting = len({seq.request.request_id for seq in self._waiting})
        limit = self._config.queue_limit
        return n_waiting > 0 and n_waiting >= limit - min(n_kept, int(KEPT_SHARE * limit))

    def _hopeless(self, request: Request, now: float) -> DeadlineExceeded | None:
        """The refusal of a request whose deadline would pass while it waits; None if it may come in time."""
        if request.deadline_s is None or not self._waiting:
            return None
        priority = request.spec.priority
        ahead = [seq for seq in self._waiting if seq.request.spec.priority >= priority]
        wait_s = self._estimate.seconds(sum(map(self._n_tokens, ahead)))
        left_s = request.deadline_s - now
        if wait_s is None or wait_s <= left_s:
            return None
        return deadline_hopeless(wait_s, left_s)

    def _n_tokens(self, seq: Sequence) -> float:
        n_left = max(1, seq.decoder.max_new - seq.n_generated)
        return len(seq.tokens) + min(n_left, self._estimate.answer_tokens)

    def overdue(self, now: float) -> list[tuple[Sequence, EdgeAgentError | None]]:
        """Sequences that shall not wait any longer, with the reason; None: cancelled."""
        found: list[tuple[Sequence, EdgeAgentError | None]] = []
        for seq in self._waiting:
            request = seq.request
            waited_s = now - request.arrived_s
            if request.is_cancelled:
                found.append((seq, None))
            elif seq.started_s is not None:
                continue
            elif request.is_overdue(now):
                found.append((seq, deadline_exceeded(waited_s)))
            elif waited_s > self._config.queue_timeout_s:
                found.append((seq, self._timeout(request, waited_s)))
        return found

    def _timeout(self, request: Request, waited_s: float) -> QueueTimeout:
        retry_after_s = self._estimate.retry_after_s(request.spec.scope)
        limit_s = self._config.queue_timeout_s
        return queue_timeout(waited_s, limit_s, retry_after_s=retry_after_s)
