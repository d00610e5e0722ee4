"""The record of a request: counts and times, never content."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial

from edgeagent.routing.decision import Decision
from edgeagent.routing.feature_record import packed_text
from edgeagent.serving.engines import Engines
from edgeagent.serving.request_origin import RequestOrigin
from edgeagent.store.decisions import DecisionRow
from edgeagent.store.requests import RequestRow
from edgeagent.types.answer import FinishReason, Usage
from edgeagent.types.generation import GenerateSpec

# The client left before its answer was complete; nginx logs the same status.
CLIENT_GONE = 499
UNKNOWN = "unknown"


@dataclass(frozen=True)
class AnswerLinks:
    """What a stored answer belongs to; a decision goes with it."""

    response_id: str | None = None
    conversation_id: str | None = None
    subject: str | None = None


@dataclass
class RequestRecord:
    """One request from its arrival to its row in the log. `status` is an HTTP status; until the request
    has succeeded or failed, it counts as given up by its client."""

    origin: RequestOrigin
    decision: Decision
    started_s: float = field(default_factory=time.monotonic)
    status: int = CLIENT_GONE
    links: AnswerLinks | None = None

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
            decision=self._decision_row(),
            traceparent=self.origin.traceparent,
        )

    def _decision_row(self) -> DecisionRow | None:
        """The decision of a route, for the decision log."""
        choice, links = self.decision.choice, self.links or AnswerLinks()
        if choice is None or self.decision.route is None:
            return None
        text = choice.text
        return DecisionRow(
            request_id=self.origin.request_id,
            owner=self.origin.owner,
            route=self.decision.route,
            reason=choice.reason,
            chosen=choice.model_id,
            answered=self.decision.model_id,
            default_model=choice.default,
            created_ms=int(1e3 * time.time()),
            began_s=self.started_s,
            chances=choice.chances,
            features=partial(packed_text, text) if text is not None else None,
            domain=choice.domain,
            subject=choice.subject or links.subject,
            response_id=links.response_id,
            conversation_id=links.conversation_id,
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
