"""The worker of a sentence encoder that was taught intents: the vector of a question, and the intent that a
linear classifier finds for it. To the daemon it is an assistant model that fills no slots."""

from __future__ import annotations

import time
from typing import ClassVar

import numpy as np

from edgeagent.engine import protocol
from edgeagent.engine.embedding.embedder import EmbeddingRequest
from edgeagent.engine.embedding.worker import EmbeddingWorker
from edgeagent.engine.intents.intent_classifier import IntentClassifier
from edgeagent.engine.intents.intent_decoder import chosen, settled
from edgeagent.engine.intents.intent_scoring import weigh
from edgeagent.engine.output.decoder import Draw
from edgeagent.errors import EdgeAgentError, InvalidParameter
from edgeagent.types.answer import PromptFacts, TokenChunk, Usage
from edgeagent.types.engine_config import EngineConfig
from edgeagent.types.generation import GenerateSpec
from edgeagent.types.intents import Confidence, IntentQuestion
from edgeagent.types.template import TemplateFacts
from edgeagent.types.unary_requests import (
    CountSpec,
    EmbedSpec,
    RerankSpec,
    Scores,
    TemplateSpec,
    Vectors,
)
from edgeagent.worker.channel import Channel
from edgeagent.worker.refusals import deadline_exceeded


class IntentWorker(EmbeddingWorker):
    """As the worker of an embedding model, with a choice among intents for each text."""

    does: ClassVar[str] = "chooses among its intents, and makes no embeddings and ranks nothing"

    def __init__(
        self, channel: Channel, config: EngineConfig, started_s: float, classifier: IntentClassifier
    ) -> None:
        super().__init__(channel, config, started_s)
        self._classifier = classifier
        self._specs: dict[int, GenerateSpec] = {}

    # --- engine thread

    def _emit(self, request_id: int, result: Vectors | Scores) -> None:
        spec = self._specs.get(request_id)
        if spec is None or spec.intent_question is None or not isinstance(result, Vectors):
            return
        question = spec.intent_question
        try:
            vector = np.frombuffer(result.data, "<f4")
            number, confidence = weigh(question, self._classifier.scores(vector, question))
        except EdgeAgentError as exc:
            self._channel.refuse(request_id, exc)
            return
        usage = Usage(
            n_prompt=result.n_prompt, n_cached=0, n_generated=0 if confidence.is_abstained else 1,
            queue_ms=result.queue_ms, ttft_ms=result.total_ms, total_ms=result.total_ms,
        )  # fmt: skip
        self._send(request_id, spec, chosen(question, number, confidence), usage, confidence)

    def _send(
        self,
        request_id: int,
        spec: GenerateSpec,
        draw: Draw,
        usage: Usage,
        confidence: Confidence | None,
    ) -> None:
        """The whole answer, once for each that is wanted."""
        pieces = draw.pieces._replace(confidence=confidence)
        chunks: list[tuple[int, TokenChunk]] = [
            (request_id, pieces.chunk(index, draw.finish or "tool_calls", usage))
            for index in range(spec.n_answers)
        ]
        self._channel.send(protocol.Step(chunks))

    def _forget(self, request_id: int) -> None:
        super()._forget(request_id)
        self._specs.pop(request_id, None)

    # --- tokenizer thread

    def _prepare(self, request: EmbeddingRequest) -> None:
        spec = self._specs.get(request.request_id)
        try:
            if spec is not None and spec.timeout_s is not None:
                waited_s = time.monotonic() - request.arrived_s
                if waited_s >= spec.timeout_s:
                    raise deadline_exceeded(waited_s)
            super()._prepare(request)
        except BaseException:
            self._forget(request.request_id)
            raise
        self._channel.send(protocol.Prepared(request.request_id, PromptFacts(request.n_prompt)))

    # --- receiver thread

    def _handle(self, message: protocol.ToWorker) -> None:
        match message:
            case protocol.Generate(request_id, spec) if spec.intent_question is not None:
                self._take(request_id, spec, spec.intent_question)
            case protocol.Ask(request_id, TemplateSpec()):
                self._channel.send(protocol.Result(request_id, TemplateFacts(source="built-in")))
            case protocol.Ask(request_id, CountSpec(request=spec)):
                self._count(request_id, spec)
            case protocol.Ask(request_id, EmbedSpec() | RerankSpec()):
                self._channel.refuse(
                    request_id,
                    InvalidParameter(
                        f"Model {self._config.model_id} {self.does}: GET /v1/models lists those that do.",
                        param="model",
                    ),
                )
            case _:
                super()._handle(message)

    def _take(self, request_id: int, spec: GenerateSpec, question: IntentQuestion) -> None:
        draw = settled(question)
        if draw is not None:
            self._send(request_id, spec, draw, Usage(0, 0, 0, 0.0, 0.0, 0.0), None)
            return
        asked = EmbedSpec(inputs=[question.text.strip()], truncate=True)
        request = EmbeddingRequest(request_id, asked, time.monotonic())
        self._requests[request_id], self._specs[request_id] = request, spec
        if not self._tokenizer.put(request_id, lambda: self._prepare(request)):
            self._forget(request_id)

    def _count(self, request_id: int, spec: GenerateSpec) -> None:
        texts = [m for p in spec.prompts for m in (p.messages or [])]
        text = " ".join(str(m.get("content") or "") for m in texts)

        def job() -> None:
            self._channel.send(protocol.Result(request_id, len(self._tokens_of(text))))

        self._tokenizer.put(request_id, job)
