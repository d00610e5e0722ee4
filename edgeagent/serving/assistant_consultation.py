"""Asks an assistant model how sure it is of its answer, before a larger model may take over."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import msgspec

from edgeagent.errors import EngineFailed, by_code
from edgeagent.routing.decision import Decision, TraceStep
from edgeagent.serving.engines import Engines
from edgeagent.serving.scope_judge import ScopeJudge
from edgeagent.types.generation import GenerateSpec
from edgeagent.types.intents import Confidence

if TYPE_CHECKING:
    from edgeagent.routing.scope_gate import ScopeScore


@dataclass(frozen=True)
class Verdict:
    """Whether the assistant model is to answer, by its confidence and its scope gate; `spec` is its request
    then. `scope` None: no gate has judged."""

    spec: GenerateSpec
    confidence: Confidence
    scope: ScopeScore | None = None

    @property
    def is_accepted(self) -> bool:
        return not self.confidence.is_abstained

    @property
    def is_outside(self) -> bool:
        """Whether the gate has found the text out of scope."""
        return self.scope is not None and not self.scope.is_inside

    def noted(self, decision: Decision) -> Decision:
        """The decision with the score in its trace, where a route has made it."""
        if self.scope is None or decision.route is None:
            return decision
        found = "in scope" if self.scope.is_inside else "out of scope"
        step = TraceStep(f"scope gate of {decision.model_id}", found, str(self.scope))
        scores = {**decision.scores, "scope": self.scope.score, "scope_cut": self.scope.cut}
        return replace(decision, trace=(*decision.trace, step), scores=scores)


class AssistantConsultation:
    """Event loop's thread only. Without a `judge` the model's probability decides alone."""

    def __init__(self, engines: Engines, judge: ScopeJudge | None = None) -> None:
        self._engines = engines
        self._judge = judge

    async def close(self) -> None:
        """May be called twice."""
        if self._judge is not None:
            await self._judge.close()

    async def of(self, decision: Decision, spec: GenerateSpec) -> Verdict:
        """Raises what `Pool.lease` and the worker raise."""
        question, model_id = spec.intent_question, decision.model_id
        if question is None or self._judge is None:
            return Verdict(spec, await self._confidence(model_id, spec))
        if not await self._judge.covers(model_id, question):
            return Verdict(spec, await self._confidence(model_id, spec))
        # The gate counts the probability, too: one threshold more would lose other right answers.
        unbounded = msgspec.structs.replace(question, threshold=0.0)
        open_spec = msgspec.structs.replace(spec, intent_question=unbounded)
        confidence = await self._confidence(model_id, open_spec)
        scope = await self._judge.score(model_id, question, confidence)
        if scope is None:
            is_out, open_spec = confidence.probability < question.threshold, spec
        else:
            is_out = not scope.is_inside
        judged = msgspec.structs.replace(confidence, is_abstained=is_out or confidence.is_abstained)
        return Verdict(open_spec, judged, scope)

    async def _confidence(self, model_id: str, spec: GenerateSpec) -> Confidence:
        question = msgspec.structs.replace(spec, max_tokens=1, n=1)
        async with self._engines.lease(model_id) as client:
            generation = client.generate(question)
            try:
                async for chunk in generation:
                    if chunk.error is not None:
                        raise by_code(*chunk.error)
                    if chunk.confidence is not None:
                        self._engines.record_answer(model_id)
                        return chunk.confidence
            finally:
                generation.cancel()
        raise EngineFailed(f"Model {model_id} gave no answer: send the request again.")
