"""Requests that are answered in one piece: embeddings, rankings, texts to tokens and back, tokens counted.

    which model -> lease -> ask -> result -> note

Whoever takes a `OneShotRequest` must `release` it, which notes how it ended.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any

from edgeagent.engine.client import EngineClient
from edgeagent.errors import EngineDied, InvalidParameter, ModelNotFound
from edgeagent.pool import Pool
from edgeagent.routing.tasks import none_installed, wrong_kind
from edgeagent.serving.answer import (
    CLIENT_GONE,
    DEFAULT_ALIASES,
    Decision,
    ModelSource,
    RequestOrigin,
)
from edgeagent.serving.request_log import log, model_of, noted
from edgeagent.store.requests import RequestRow
from edgeagent.types.engine import Task
from edgeagent.types.questions import Question, Scores, Vectors

logger = logging.getLogger(__name__)


class OneShotRequest:
    """One question to one model. `release()` may be called twice."""

    def __init__(
        self,
        origin: RequestOrigin,
        decision: Decision,
        question: Question,
        pool: Pool,
        note: Callable[[RequestRow], None],
    ) -> None:
        self.origin = origin
        self.decision = decision
        self.question = question
        self.started_s = time.monotonic()
        self.status = CLIENT_GONE  # until it is known better
        self.computed: Vectors | Scores | None = None
        self._pool = pool
        self._note = note
        self._is_released = False

    async def result(self) -> Any:
        """Vectors, Scores, list[int], str or int, by the question. Raises what `Pool.lease` and the
        worker raise.

        A worker that dies is asked again once, in its next life; once, because the question may be
        what killed it. Cancelling the task that waits here cancels the work.
        """
        try:
            value = await self._ask()
        except EngineDied:
            logger.info("request_repeated model=%s reason=engine_died", self.decision.model_id)
            value = await self._ask()
        if isinstance(value, Vectors | Scores):
            self.computed = value
        self.status = 200
        self._pool.record_answer(self.decision.model_id)
        return value

    async def _ask(self) -> Any:
        async with self._pool.lease(self.decision.model_id, EngineClient) as client:
            return await client.ask(self.question)

    @property
    def noted_model(self) -> str:
        return model_of(self.decision, self._pool)

    @property
    def n_tokens(self) -> int:
        """Tokens that were computed, for the key's bound."""
        return self.computed.n_prompt if self.computed is not None else 0

    def release(self) -> None:
        """Note how it ended."""
        if not self._is_released:
            self._is_released = True
            queue_ms = self.computed.queue_ms if self.computed is not None else None
            row = noted(self, n_prompt=self.n_tokens, queue_ms=queue_ms)
            log(row)
            self._note(row)


class OneShotService:
    """Asks the models of a pool what is answered in one piece. Event loop's thread only."""

    def __init__(
        self,
        pool: Pool,
        models: ModelSource,
        note: Callable[[RequestRow], None] = lambda row: None,
    ) -> None:
        self._pool = pool
        self._models = models
        self._note = note

    async def model_for(self, wanted: Task, model: str | None) -> Decision:
        """The model that does this: the one named, else the first there is.

        Raises: InvalidParameter for one that does something else; ModelNotFound.
        """
        await self._models.examine()
        model = self._models.named(model) if model else model
        able = self._models.with_task(wanted)
        if model is None or model in DEFAULT_ALIASES:
            if not able:
                raise ModelNotFound(none_installed(wanted), param="model")
            return Decision(able[0], "default")
        if model not in able:
            task = self._models.task(self._models.find(model))
            if task != wanted:  # else it came after the listing
                raise InvalidParameter(wrong_kind(model, task, wanted, able), param="model")
        return Decision(model, "named")

    def any_model(self, model: str | None) -> Decision:
        """The model named, else the default one, else the first of any kind. Raises: ModelNotFound."""
        model = self._models.named(model) if model else model
        if model is not None and model not in DEFAULT_ALIASES:
            return Decision(self._models.find(model).id, "named")
        default = self._models.default_id()
        others = (*self._models.with_task("embed"), *self._models.with_task("rerank"))
        if default is None and not others:
            raise ModelNotFound(
                "No model is installed: `edgeagent models install smollm2-135m-instruct` gets a small "
                "one.",
                param="model",
            )
        return Decision(default or others[0], "default")

    def ask(self, origin: RequestOrigin, decision: Decision, question: Question) -> OneShotRequest:
        """A call that waits for `result`. Whoever asks must `release` it."""
        return OneShotRequest(origin, decision, question, self._pool, self._note)
