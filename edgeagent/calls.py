"""Requests that are answered in one piece: embeddings, texts to tokens and back, tokens counted.

    which model -> lease -> ask -> result -> note

Whoever takes a `Call` must `release` it, which notes how it ended.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any

from edgeagent.agent import CLIENT_GONE, DEFAULT_ALIASES, Asked, Decision, ModelSource, log, noted
from edgeagent.errors import EngineDied, InvalidParameter, ModelNotFound
from edgeagent.pool import Pool
from edgeagent.store.requests import RequestRow
from edgeagent.types import Question, Vectors

logger = logging.getLogger(__name__)


class Call:
    """One question to one model. `release()` may be called twice."""

    def __init__(
        self,
        asked: Asked,
        decision: Decision,
        question: Question,
        pool: Pool,
        note: Callable[[RequestRow], None],
    ) -> None:
        self.asked = asked
        self.decision = decision
        self.question = question
        self.started_s = time.monotonic()
        self.status = CLIENT_GONE  # until it is known better
        self.vectors: Vectors | None = None
        self._pool = pool
        self._note = note
        self._is_released = False

    async def result(self) -> Any:
        """Vectors, list[int], str or int, by the question. Raises what `Pool.lease` and the worker raise.

        A worker that dies is asked again once, in its next life; once, because the question may be
        what killed it. Cancelling the task that waits here cancels the work.
        """
        try:
            value = await self._ask()
        except EngineDied:
            logger.info("request_repeated model=%s reason=engine_died", self.decision.model_id)
            value = await self._ask()
        if isinstance(value, Vectors):
            self.vectors = value
        self.status = 200
        self._pool.record_answer(self.decision.model_id)
        return value

    async def _ask(self) -> Any:
        async with self._pool.lease(self.decision.model_id) as client:
            return await client.ask(self.question)

    @property
    def n_tokens(self) -> int:
        """Tokens that were computed, for the key's bound."""
        return self.vectors.n_prompt if self.vectors is not None else 0

    def release(self) -> None:
        """Note how it ended."""
        if not self._is_released:
            self._is_released = True
            queue_ms = self.vectors.queue_ms if self.vectors is not None else None
            row = noted(self, n_prompt=self.n_tokens, queue_ms=queue_ms)
            log(row)
            self._note(row)


class Calls:
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

    async def embedder(self, model: str | None) -> Decision:
        """The model that embeds: the one named, else the first there is.

        Raises: InvalidParameter for one that generates text; ModelNotFound.
        """
        await self._models.examine()
        able = self._models.with_task("embed")
        if model is None or model in DEFAULT_ALIASES:
            if not able:
                raise ModelNotFound(
                    "No model that makes embeddings is installed: `edgeagent models install "
                    "all-minilm-l6-v2` gets a small one.",
                    param="model",
                )
            return Decision(able[0], "default")
        if model not in able:
            found = self._models.find(model)
            if self._models.task(found) == "embed":  # it came after the listing
                return Decision(model, "named")
            others = f"choose one that does ({', '.join(able)})" if able else (
                "`edgeagent models install all-minilm-l6-v2` gets one that does"
            )  # fmt: skip
            raise InvalidParameter(
                f"Model {model!r} generates text and makes no embeddings: {others}.", param="model"
            )
        return Decision(model, "named")

    def any_model(self, model: str | None) -> Decision:
        """The model named, else the default one, else the first that embeds. Raises: ModelNotFound."""
        if model is not None and model not in DEFAULT_ALIASES:
            return Decision(self._models.find(model).id, "named")
        default = self._models.default_id() or next(iter(self._models.with_task("embed")), None)
        if default is None:
            raise ModelNotFound(
                "No model is installed: `edgeagent models install smollm2-135m-instruct` gets a small "
                "one.",
                param="model",
            )
        return Decision(default, "default")

    def ask(self, asked: Asked, decision: Decision, question: Question) -> Call:
        """A call that waits for `result`. Whoever asks must `release` it."""
        return Call(asked, decision, question, self._pool, self._note)
