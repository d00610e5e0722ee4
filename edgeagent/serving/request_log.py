"""The record of a request: counts and times, never content."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field

from edgeagent.routing.decision import Decision
from edgeagent.serving.request_origin import RequestOrigin
from edgeagent.serving.serving_effects import Engines
from edgeagent.store.requests import RequestRow
from edgeagent.types.answer import FinishReason, Usage
from edgeagent.types.generation import GenerateSpec

# The client left before its answer was complete; nginx logs the same status.
CLIENT_GONE = 499
UNKNOWN = "unknown"


@dataclass
class RequestRecord:
    """One request from its arrival to its row in the log. `status` is an HTTP status; until the request
    has succeeded or failed, it counts as given up by its client."""

    origin: RequestOrigin
    decision: Decision
    started_s: float = field(default_factory=time.monotonic)
    status: int = CLIENT_GONE

    def row(
        self,
        engines: Engines,
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
            id=self.origin.request_id,
            owner=self.origin.owner,
            key_id=self.origin.key_id,
            endpoint=self.origin.endpoint,
            model=self._model(engines),
            route=self.decision.reason,
            status=self.status,
            finish=finish,
            n_prompt=n_prompt,
            n_cached=n_cached,
            n_generated=n_generated,
            queue_ms=queue_ms,
            ttft_ms=ttft_ms,
            tpot_ms=tpot_ms,
            total_ms=1e3 * (time.monotonic() - self.started_s),
            created_ms=int(1e3 * time.time()),
            audio_s=audio_s,
            route_name=self.decision.route,
            rule=self.decision.rule,
        )

    def _model(self, engines: Engines) -> str:
        """The model's name. A name that only the client knows is content, and is not logged."""
        model_id = self.decision.model_id
        is_known = self.decision.reason != "named" or engines.is_known(model_id)
        return model_id if is_known else UNKNOWN

    def answer_row(
        self,
        engines: Engines,
        spec: GenerateSpec,
        usages: Mapping[int, Usage],
        finishes: Mapping[int, FinishReason],
    ) -> RequestRow:
        """The row of an answer in tokens, whose parts are numbered; the times are those of the slowest."""
        slowest = max(usages.values(), key=lambda usage: usage.total_ms, default=None)
        firsts = [usage for index, usage in usages.items() if index % spec.n == 0]
        tpot_ms = None
        if slowest is not None and slowest.n_generated > 1:
            tpot_ms = (slowest.total_ms - slowest.ttft_ms) / (slowest.n_generated - 1)
        reasons = [finishes.get(i, "cancelled") for i in range(spec.n_answers)]
        return self.row(
            engines,
            finish=",".join(dict.fromkeys(reasons)),
            n_prompt=sum(usage.n_prompt for usage in firsts),
            n_cached=sum(usage.n_cached for usage in firsts),
            n_generated=sum(usage.n_generated for usage in usages.values()),
            queue_ms=slowest.queue_ms if slowest else None,
            ttft_ms=slowest.ttft_ms if slowest else None,
            tpot_ms=tpot_ms,
        )
