"""What is noted of a request that has ended: counts and times, never content."""

from __future__ import annotations

import logging
import time
from typing import Protocol

from edgeagent.store.requests import RequestRow
from edgeagent.types.answer import FinishReason, Usage
from edgeagent.types.generation import GenerateSpec

logger = logging.getLogger(__name__)


class Who(Protocol):
    """Who asked, and by which way."""

    @property
    def endpoint(self) -> str: ...

    @property
    def request_id(self) -> str: ...

    @property
    def owner(self) -> str: ...

    @property
    def key_id(self) -> str: ...


class Routed(Protocol):
    """Which model was asked, and why."""

    @property
    def model_id(self) -> str: ...

    @property
    def reason(self) -> str: ...


class Places(Protocol):
    """What tells a model that is here from a text that a client has sent."""

    def resident(self, model_id: str) -> object | None: ...


UNKNOWN = "unknown"


def model_of(decision: Routed, places: Places) -> str:
    """The model as it is noted: a name that only its client knows is content, and is not."""
    is_here = decision.reason != "named" or places.resident(decision.model_id) is not None
    return decision.model_id if is_here else UNKNOWN


class Noted(Protocol):
    """What a row tells of any request, however it is answered."""

    status: int
    started_s: float

    @property
    def origin(self) -> Who: ...

    @property
    def decision(self) -> Routed: ...

    @property
    def noted_model(self) -> str: ...


class Answered(Noted, Protocol):
    """An answer in tokens, by the numbers of its parts."""

    spec: GenerateSpec
    usages: dict[int, Usage]
    finishes: dict[int, FinishReason]


def row_of(answer: Answered) -> RequestRow:
    """What is noted of a request: counts and times, never content."""
    usages = list(answer.usages.values())
    slowest = max(usages, key=lambda usage: usage.total_ms, default=None)
    n = answer.spec.n
    firsts = [usage for index, usage in answer.usages.items() if index % n == 0]
    tpot_ms = None
    if slowest is not None and slowest.n_generated > 1:
        tpot_ms = (slowest.total_ms - slowest.ttft_ms) / (slowest.n_generated - 1)
    finishes = [answer.finishes.get(i, "cancelled") for i in range(answer.spec.n_answers)]
    return noted(
        answer,
        finish=",".join(dict.fromkeys(finishes)),
        n_prompt=sum(usage.n_prompt for usage in firsts),
        n_cached=sum(usage.n_cached for usage in firsts),
        n_generated=sum(usage.n_generated for usage in usages),
        queue_ms=slowest.queue_ms if slowest else None,
        ttft_ms=slowest.ttft_ms if slowest else None,
        tpot_ms=tpot_ms,
    )


def noted(
    request: Noted,
    *,
    n_prompt: int,
    queue_ms: float | None,
    n_cached: int = 0,
    n_generated: int = 0,
    ttft_ms: float | None = None,
    tpot_ms: float | None = None,
    finish: str | None = None,
    audio_s: float | None = None,
) -> RequestRow:
    """The row of a request that ends now."""
    return RequestRow(
        id=request.origin.request_id,
        owner=request.origin.owner,
        key_id=request.origin.key_id,
        endpoint=request.origin.endpoint,
        model=request.noted_model,
        route=request.decision.reason,
        status=request.status,
        finish=finish,
        n_prompt=n_prompt,
        n_cached=n_cached,
        n_generated=n_generated,
        queue_ms=queue_ms,
        ttft_ms=ttft_ms,
        tpot_ms=tpot_ms,
        total_ms=1e3 * (time.monotonic() - request.started_s),
        created_ms=int(1e3 * time.time()),
        audio_s=audio_s,
    )


def log(row: RequestRow) -> None:
    logger.info(
        "request id=%s endpoint=%s model=%s route=%s status=%s finish=%s n_prompt=%s n_cached=%s "
        "n_generated=%s queue_ms=%.0f ttft_ms=%.0f total_ms=%.0f",
        row.id,
        row.endpoint,
        row.model,
        row.route,
        row.status,
        row.finish,
        row.n_prompt,
        row.n_cached,
        row.n_generated,
        row.queue_ms or 0,
        row.ttft_ms or 0,
        row.total_ms,
    )
