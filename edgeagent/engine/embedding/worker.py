"""The worker of one embedding model: tokens on the tokenizer thread, vectors on the main thread."""

from __future__ import annotations

import os
import time
from array import array
from collections.abc import Iterator
from typing import Any, ClassVar

from edgeagent.engine import protocol
from edgeagent.engine.embedding.embedder import Embedder, EmbeddingRequest
from edgeagent.engine.embedding.int8_encoder import make_encoder
from edgeagent.engine.process.tokenizer_thread import TokenizerThread, check_ids
from edgeagent.errors import ContextLengthExceeded, InvalidParameter
from edgeagent.types.engine_config import EngineConfig, EngineFacts
from edgeagent.types.unary_requests import (
    DetokenizeSpec,
    EmbedSpec,
    RerankSpec,
    Scores,
    TokenizeSpec,
    Vectors,
)
from edgeagent.worker import confinement
from edgeagent.worker.channel import Channel
from edgeagent.worker.loop import Loop

# Characters per token of the longest text that are tokenized first; English has 4.
LOOK_CHARS = 16


class EmbeddingWorker:
    """One loaded embedding model, answering one daemon."""

    # The question that it answers, and the text for the refusal of others.
    answers: ClassVar[type[EmbedSpec | RerankSpec]] = EmbedSpec
    does: ClassVar[str] = "makes embeddings, and generates no text and ranks nothing"

    def __init__(self, channel: Channel, config: EngineConfig, started_s: float) -> None:
        self._channel = channel
        self._config = config
        self._requests: dict[int, EmbeddingRequest] = {}
        self._loop = Loop(channel)
        self._encoder = make_encoder(config)
        self._encoder.warm_up()
        self._tokenizer = TokenizerThread(config, self._encoder, channel)
        self._embedder = Embedder(
            config, self._encoder, emit=self._emit, refuse=channel.refuse, forget=self._forget
        )
        self._facts = self._describe(started_s)

    def _describe(self, started_s: float) -> EngineFacts:
        encoder = self._encoder
        return EngineFacts(
            pid=os.getpid(),
            description=encoder.description,
            n_params=encoder.n_params,
            n_vocab=encoder.n_vocab,
            n_ctx=encoder.n_ctx,
            n_ctx_slot=encoder.n_text,
            n_ctx_train=encoder.n_ctx_train,
            n_seq=encoder.n_texts,
            n_threads=self._config.n_threads,
            weights_bytes=encoder.weights_bytes,
            kv_bytes=encoder.kv_bytes(),
            has_chat_template=False,
            can_share_prefix=False,
            load_ms=1e3 * (time.monotonic() - started_s),
            task=self._config.task,
        )

    def run(self) -> None:
        """Serve until the daemon goes or ends this process."""
        pulses = [self._tokenizer.pulse]
        self._loop.run(self._facts, self._embedder, self._handle, confinement.rss_bytes, pulses)

    def _emit(self, request_id: int, result: Vectors | Scores) -> None:
        self._channel.send(protocol.Result(request_id, result))

    def _forget(self, request_id: int) -> None:
        self._requests.pop(request_id, None)

    # --- tokenizer thread

    def _prepare(self, request: EmbeddingRequest) -> None:
        """Tokens of every text, then into the queue.

        Raises: InvalidParameter, ContextLengthExceeded.
        """
        try:
            for tokens in self._texts(request.spec):
                if request.is_cancelled:
                    break
                self._tokenizer.pulse.beat()
                request.texts.append(tokens)
                request.n_prompt += len(tokens)
        except BaseException:
            self._forget(request.request_id)
            raise
        self._loop.post(lambda: self._embedder.submit(request))

    def _texts(self, spec: Any) -> Iterator[array[int]]:
        """The texts of a request, each as tokens."""
        if spec.dimensions is not None and spec.dimensions > self._encoder.width:
            raise InvalidParameter(
                f"`dimensions` is {spec.dimensions}, vectors of {self._config.model_id} have "
                f"{self._encoder.width} numbers: ask for at most as many.",
                param="dimensions",
            )
        for index, given in enumerate(spec.inputs):
            yield self._fitting(self._tokens(given), index, spec)

    def _tokens(self, given: str | list[int]) -> array[int]:
        if isinstance(given, str):
            return self._tokens_of(given)
        check_ids(given, self._encoder.n_vocab, "input")
        return array("i", given)

    def _tokens_of(self, text: str) -> array[int]:
        """The tokens of a text, or of its beginning if that is much too long."""
        return self._encoder.tokens_of(self._enough_of(text), add_special=True, parse_special=False)

    def _enough_of(self, text: str) -> str:
        """The text, or its beginning if that is much too long: tokenizing 4 MB takes seconds, in which no
        other request is prepared."""
        bound = self._encoder.n_text
        if len(text) > LOOK_CHARS * bound:
            start = text[: LOOK_CHARS * bound]
            tokens = self._encoder.tokens_of(start, add_special=False, parse_special=False)
            if len(tokens) > 2 * bound:
                return start
        return text

    def _fitting(self, tokens: array[int], index: int, spec: EmbedSpec) -> array[int]:
        """The tokens of a text that fits into the context, truncated if the client asked for that."""
        bound = self._encoder.n_text
        if not tokens:
            raise InvalidParameter(
                f"Input {index} has no tokens that {self._config.model_id} knows: send text.",
                param="input",
            )
        if len(tokens) <= bound:
            return tokens
        if not spec.truncate:
            raise ContextLengthExceeded(
                f"Input {index} has at least {len(tokens)} tokens, {self._config.model_id} takes "
                f"{bound}: shorten or split it, or send `truncate: true` to have its end left away.",
                param="input",
            )
        # Tokens that the model puts after every text, like [SEP], stay after a truncated one.
        last = tokens[-1:] if tokens[-1] in self._encoder.end_marks else array("i")
        return tokens[: bound - len(last)] + last

    # --- receiver thread

    def _handle(self, message: protocol.ToWorker) -> None:
        match message:
            case protocol.Ask(request_id, EmbedSpec() | RerankSpec() as spec) if isinstance(
                spec, self.answers
            ):
                request = EmbeddingRequest(request_id, spec, time.monotonic())
                self._requests[request_id] = request
                if not self._tokenizer.put(request_id, lambda: self._prepare(request)):
                    self._forget(request_id)
            case protocol.Ask(request_id, TokenizeSpec() | DetokenizeSpec() as question):
                self._tokenizer.answer(request_id, question)
            case protocol.Generate(request_id, _) | protocol.Ask(request_id, _):
                self._channel.refuse(
                    request_id,
                    InvalidParameter(
                        f"Model {self._config.model_id} {self.does}: GET /v1/models lists those that "
                        "do.",
                        param="model",
                    ),
                )
            case protocol.Cancel(request_id):
                cancelled = self._requests.get(request_id)
                if cancelled is not None:
                    cancelled.is_cancelled = True
                    if self._embedder.computing == {cancelled}:
                        self._encoder.abort()
                    self._loop.wake()
            case protocol.ForgetPrefixes():
                pass  # nothing is cached
