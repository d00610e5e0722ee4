"""Computes vectors or scores for the texts of many requests, in steps, so that none waits for a long list.

    arrives -> waiting -> some of its texts in each step -> ends: result | refused | cancelled

A step takes one text of each request in turn. The engine thread owns everything here; other threads submit
requests through the worker's inbox, mark them as cancelled, and may read `computing`.
"""

from __future__ import annotations

import logging
import time
from array import array
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Protocol

import numpy as np

from edgeagent.engine.batching.step_runner import StepAborted
from edgeagent.engine.batching.threads import ThreadChoice
from edgeagent.engine.embedding.rerank_prompt import relevance
from edgeagent.errors import EngineFailed
from edgeagent.types.engine_config import EngineConfig, EngineHealth
from edgeagent.types.unary_requests import EmbedSpec, RerankSpec, Scores, Vectors
from edgeagent.types.worker_config import ComputeLimits
from edgeagent.worker.refusals import queue_full, queue_timeout

logger = logging.getLogger(__name__)

# A step of fewer tokens spends its time on overhead; one of more gains nothing: 256 tokens in a step
# ran at 4,240 tokens/s, 90 at 4,310, 12 at 1,940 (all-MiniLM-L6-v2 F16, one core of an EPYC Zen 5).
MIN_STEP_TOKENS = 64
# llama.cpp compares each token with all tokens of a step, also those of other texts. Chunks of 228 tokens a
# second of one core, one and two in a step: all-MiniLM-L6-v2 F16 10.5 and 9.9, BF16 15.4 and 13.9,
# edge-encoder 22.2 and 19.1 (zen4, 2026-11-30).
MAX_STEP_TOKENS = 256
# A step of embedding is long, and a machine that is busy is so from the first one on: two threads that
# wait for each other beside other programs made 7 texts/s, one thread 82 (2 cores, load 6).
FIRST_PROBE_STEPS = 4
_NO_NUMBERS = "The model computed numbers that are none: check its file."


class TextEncoder(Protocol):
    """What the embedder needs of a model. `n_texts` is the most it takes in one step; `n_parallel`: how many
    it computes side by side, each by one thread."""

    n_texts: int
    n_parallel: int

    def encode(self, texts: Sequence[array[int]]) -> np.ndarray[Any, Any]: ...

    def set_threads(self, n_threads: int) -> None: ...

    def wait_briefly(self, is_contended: bool) -> None: ...

    def arm(self) -> None: ...


@dataclass(eq=False)
class EmbeddingRequest:
    """A request in progress. `texts` are those that are not computed yet, in the order in which they are
    computed. `order`: the places in it of all texts as they were given; None: the same order."""

    request_id: int
    spec: EmbedSpec | RerankSpec
    arrived_s: float
    texts: deque[array[int]] = field(default_factory=deque)
    n_prompt: int = 0
    started_s: float | None = None
    is_cancelled: bool = False
    order: list[int] | None = None
    vectors: list[np.ndarray[Any, Any]] = field(default_factory=list)


def plan_texts(
    lengths: Sequence[Sequence[int]], n_tokens: int, n_texts: int, n_parallel: int = 1
) -> list[int]:
    """How many of its next texts each request gets in a step of `n_texts` at most, of which `n_parallel`
    threads compute `n_tokens` each.

    One of each in turn, from the first request on; one whose next text does not fit gets no more. The
    first text of each thread is taken whatever its length.
    """
    counts = [0] * len(lengths)
    open_ones = [i for i, waiting in enumerate(lengths) if waiting]
    loads = [0] * n_parallel
    taken = 0
    while open_ones and taken < n_texts:
        still = []
        for i in open_ones:
            need = lengths[i][counts[i]]
            least = loads.index(min(loads))
            if taken == n_texts or (loads[least] and loads[least] + need > n_tokens):
                continue
            counts[i] += 1
            loads[least] += need
            taken += 1
            if counts[i] < len(lengths[i]):
                still.append(i)
        open_ones = still
    return counts


class Embedder:
    """Batches texts for one encoder. `emit` sends the result of a request, `refuse` its error; `forget` is
    called for every request that has ended."""

    def __init__(
        self,
        config: EngineConfig,
        encoder: TextEncoder,
        *,
        emit: Callable[[int, Vectors | Scores], None],
        refuse: Callable[[int, Exception], None],
        forget: Callable[[int], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._config = config
        self._encoder = encoder
        self._emit = emit
        self._refuse = refuse
        self._forget = forget
        self._clock = clock
        self._queue: deque[EmbeddingRequest] = deque()  # whoever was served goes to the end
        self._threads = ThreadChoice(config.n_threads, FIRST_PROBE_STEPS, config.adapts_threads)
        self._n_threads = config.n_threads  # of the last step
        self._chunk_share = 1.0
        self._tok_s = config.prefill_tok_s
        self._n_steps = 0
        self._service_s = 0.5
        self.computing: frozenset[EmbeddingRequest] = frozenset()

    @property
    def is_idle(self) -> bool:
        return not self._queue

    def health(self, rss_bytes: int) -> EngineHealth:
        n_running = sum(request.started_s is not None for request in self._queue)
        return EngineHealth(
            n_steps=self._n_steps,
            n_running=n_running,
            n_waiting=len(self._queue) - n_running,
            rss_bytes=rss_bytes,
            n_threads=self._n_threads,
        )

    def limit(self, limits: ComputeLimits) -> None:
        """Compute within these limits from the next step on."""
        self._threads.limit(limits.n_threads, limits.n_cores_taken)
        self._encoder.wait_briefly(limits.n_cores_taken > 0)
        self._chunk_share = limits.chunk_share

    def submit(self, request: EmbeddingRequest) -> None:
        """Queue a request, or refuse it when the queue is full."""
        n_waiting = sum(other.started_s is None for other in self._queue)
        if n_waiting >= self._config.queue_limit:
            self._end(
                request,
                queue_full(
                    self._config.model_id,
                    self._config.queue_limit,
                    retry_after_s=self._retry_after_s(),
                ),
            )
            return
        if self._encoder.n_parallel > 1:
            # Texts of about the same length end at about the same time.
            texts = list(request.texts)
            by_length = sorted(range(len(texts)), key=lambda i: -len(texts[i]))
            request.texts = deque(texts[i] for i in by_length)
            request.order = inverse(by_length)
        self._queue.append(request)

    def _retry_after_s(self) -> float:
        return min(120.0, max(1.0, len(self._queue) * self._service_s))

    def step(self) -> bool:
        """Compute some texts. False when there was nothing to compute."""
        self._sweep(self._clock())
        requests = list(self._queue)
        n_texts = self._encoder.n_texts
        lengths = [[len(text) for text in islice(request.texts, n_texts)] for request in requests]
        n_parallel = min(self._encoder.n_parallel, self._threads.first)
        counts = plan_texts(lengths, self._step_tokens(n_parallel), n_texts, n_parallel)
        work = [(request, n) for request, n in zip(requests, counts, strict=True) if n]
        if not work:
            return False
        try:
            vectors = self._compute(work)
        except StepAborted:
            return True  # the cancelled request goes with the next sweep
        except EngineFailed as exc:
            for request, _ in work:
                self._leave(request, exc)
            return True
        self._hand_out(work, vectors)
        return True

    def _sweep(self, now: float) -> None:
        """End requests that were cancelled or have waited too long."""
        deadline = now - self._config.queue_timeout_s
        for request in list(self._queue):
            if request.is_cancelled:
                self._leave(request, None)
            elif request.started_s is None and request.arrived_s < deadline:
                error = queue_timeout(
                    now - request.arrived_s,
                    self._config.queue_timeout_s,
                    retry_after_s=self._retry_after_s(),
                )
                self._leave(request, error)

    def _step_tokens(self, n_parallel: int) -> int:
        """The tokens that can be computed within the time of one step, by each of those that compute."""
        if self._tok_s is None:
            return MIN_STEP_TOKENS
        budget_s = self._config.step_budget_ms / 1e3 * self._chunk_share
        n = int(self._tok_s * budget_s / n_parallel)
        return min(self._config.n_batch, MAX_STEP_TOKENS, max(MIN_STEP_TOKENS, n))

    def _compute(self, work: list[tuple[EmbeddingRequest, int]]) -> np.ndarray[Any, Any]:
        texts = [text for request, n in work for text in islice(request.texts, n)]
        n_tokens = sum(map(len, texts))
        lane = 1 + (
            n_tokens >= MIN_STEP_TOKENS
        )  # small steps and full ones have their own thread counts
        # Threads that compute texts of their own do not wait for each other: as many as there are.
        is_parallel = self._encoder.n_parallel > 1
        n_threads = self._threads.first if is_parallel else self._threads.pick(lane)
        self._n_threads = n_threads
        self._encoder.set_threads(n_threads)
        self._encoder.arm()
        self.computing = frozenset(request for request, _ in work)
        started = time.perf_counter()
        try:
            vectors = self._encoder.encode(texts)
        finally:
            self.computing = frozenset()
        took = time.perf_counter() - started
        if not is_parallel:
            self._threads.observe(lane, n_threads, took / n_tokens)
        self._n_steps += 1
        if n_tokens >= MIN_STEP_TOKENS or self._tok_s is None:
            rate = n_tokens / took
            self._tok_s = rate if self._tok_s is None else self._tok_s + 0.2 * (rate - self._tok_s)
        return vectors

    def _hand_out(
        self, work: list[tuple[EmbeddingRequest, int]], vectors: np.ndarray[Any, Any]
    ) -> None:
        now = self._clock()
        row = 0
        for request, n in work:
            request.vectors.append(vectors[row : row + n])
            row += n
            for _ in range(n):
                request.texts.popleft()
            if request.started_s is None:
                request.started_s = now
            self._queue.remove(request)
            if request.texts:
                self._queue.append(request)
            else:
                self._finish(request, now)

    def _finish(self, request: EmbeddingRequest, now: float) -> None:
        started_s = request.started_s if request.started_s is not None else now
        try:
            result = result_of(request, started_s, now)
        except EngineFailed as exc:
            self._end(request, exc)
            return
        self._service_s += 0.1 * ((now - started_s) - self._service_s)
        self._emit(request.request_id, result)
        self._forget(request.request_id)

    def _leave(self, request: EmbeddingRequest, error: Exception | None) -> None:
        self._queue.remove(request)
        self._end(request, error)

    def _end(self, request: EmbeddingRequest, error: Exception | None) -> None:
        self._forget(request.request_id)
        if error is not None:
            self._refuse(request.request_id, error)


def result_of(request: EmbeddingRequest, started_s: float, now: float) -> Vectors | Scores:
    """What a request gets for all that was computed. Raises: EngineFailed for NaN."""
    rows = np.concatenate(request.vectors)
    if request.order is not None:
        rows = rows[request.order]
    queue_ms, total_ms = 1e3 * (started_s - request.arrived_s), 1e3 * (now - request.arrived_s)
    if isinstance(request.spec, RerankSpec):
        if not np.isfinite(rows).all():
            raise EngineFailed(_NO_NUMBERS)
        values = [relevance(row) for row in rows.tolist()]
        return Scores(
            values=values, n_prompt=request.n_prompt, queue_ms=queue_ms, total_ms=total_ms
        )
    data = unit(rows[:, : request.spec.dimensions])
    return Vectors(
        n_dimensions=data.shape[1],
        data=data.astype("<f4").tobytes(),
        n_prompt=request.n_prompt,
        queue_ms=queue_ms,
        total_ms=total_ms,
    )


def inverse(order: Sequence[int]) -> list[int]:
    """Where each number stands in `order`."""
    places = [0] * len(order)
    for place, number in enumerate(order):
        places[number] = place
    return places


def unit(vectors: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """The rows scaled to length 1; a row of zeros stays one. Raises: EngineFailed for NaN."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    if not np.isfinite(lengths).all():
        raise EngineFailed(_NO_NUMBERS)
    return np.asarray(vectors / np.where(lengths == 0, 1, lengths), np.float32)
