"""Requests that are answered in one piece: embeddings, rankings, tokenizing, counts of tokens.

1. choose a model that can do it (serving/model_choice.py)
2. `result`     lease its engine and ask; a worker that dies is asked once more
3. `release`    log the request

Whoever has a `OneShotRequest` must `release` it.
"""

from __future__ import annotations

import logging
from typing import Any

from edgeagent.errors import EngineDied
from edgeagent.routing.decision import Decision
from edgeagent.serving.deadline import before
from edgeagent.serving.engines import Engines
from edgeagent.serving.model_choice import ModelChooser
from edgeagent.serving.request_log import RequestRecord
from edgeagent.serving.request_origin import RequestOrigin
from edgeagent.types.engine_config import EngineFacts
from edgeagent.types.generation import GenerateSpec
from edgeagent.types.prompt import Prompt
from edgeagent.types.tools import ToolUse
from edgeagent.types.unary_requests import CountSpec, Question, Scores, Vectors

logger = logging.getLogger(__name__)


class OneShotRequest:
    """One question to one model. `release()` may be called twice."""

    def __init__(
        self, origin: RequestOrigin, decision: Decision, question: Question, engines: Engines
    ) -> None:
        self.decision = decision
        self.question = question
        self.record = RequestRecord(origin, decision)
        self.computed: Vectors | Scores | None = None
        self._engines = engines
        self._is_released = False

    async def result(self) -> Any:
        """Vectors, Scores, list[int], str or int, by the question.

        A worker that dies is asked once more after its restart; only once, since the question may have
        killed it. Cancelling the task that waits here cancels the work, as the client's deadline does.
        Raises DeadlineExceeded, and what `Pool.lease` and the worker raise.
        """
        try:
            value = await self._ask()  # 2
        except EngineDied:
            logger.info("request_repeated model=%s reason=engine_died", self.decision.model_id)
            value = await self._ask()
        if isinstance(value, Vectors | Scores):
            self.computed = value
        self.record.status = 200
        self._engines.record_answer(self.decision.model_id)
        return value

    async def _ask(self) -> Any:
        async with (
            before(self.record.origin.deadline_s),
            self._engines.lease(self.decision.model_id) as client,
        ):
            return await client.ask(self.question)

    @property
    def n_tokens(self) -> int:
        """Tokens that were computed, for the limit of the key."""
        return self.computed.n_prompt if self.computed is not None else 0

    def release(self) -> None:
        """Log how the request ended."""
        if not self._is_released:  # 3
            self._is_released = True
            queue_ms = self.computed.queue_ms if self.computed is not None else None
            row = self.record.row(self._engines, n_prompt=self.n_tokens, queue_ms=queue_ms)
            self._engines.log(row)


class OneShotService:
    """Asks models what they answer in one piece. Event loop's thread only."""

    def __init__(self, engines: Engines, chooser: ModelChooser) -> None:
        self._engines = engines
        self.chooser = chooser

    def ask(self, origin: RequestOrigin, decision: Decision, question: Question) -> OneShotRequest:
        """A request that waits for `result`; the caller must `release` it."""
        return OneShotRequest(origin, decision, question, self._engines)

    def count(
        self, origin: RequestOrigin, decision: Decision, prompt: Prompt, tools: ToolUse | None
    ) -> OneShotRequest:
        """The request for the number of tokens of a chat, with all that its template adds, tools included."""
        question = CountSpec(request=GenerateSpec(prompts=[prompt], tools=tools))
        return self.ask(origin, decision, question)

    async def engine_facts(self, decision: Decision) -> EngineFacts:
        """Facts about a model from its worker, which loads the model. Raises what `Pool.lease` raises."""
        async with self._engines.lease(decision.model_id) as client:
            return client.facts
