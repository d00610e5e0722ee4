"""The worker of one cross-encoder: a query beside each document, and a score for each pair."""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from typing import Any

from edgeagent.engine.embedding.rerank_prompt import PairBuilder
from edgeagent.engine.embedding.worker import EmbeddingWorker
from edgeagent.errors import ContextLengthExceeded, InvalidParameter
from edgeagent.types.engine_config import EngineConfig
from edgeagent.types.unary_requests import RerankSpec
from edgeagent.worker.channel import Channel


class RerankWorker(EmbeddingWorker):
    """As the worker of an embedding model, with pairs for texts."""

    answers = RerankSpec
    does = "ranks documents, and generates no text and makes no embeddings"

    def __init__(self, channel: Channel, config: EngineConfig, started_s: float) -> None:
        super().__init__(channel, config, started_s)
        self._pairing = PairBuilder(self._encoder)

    # --- tokenizer thread

    def _texts(self, spec: Any) -> Iterator[array[int]]:
        """One pair for each document.

        Raises: InvalidParameter, ContextLengthExceeded.
        """
        if not self._pairing.tokens(spec.query):
            raise InvalidParameter(
                f"`query` has no tokens that {self._config.model_id} knows: send text.",
                param="query",
            )
        for index, document in enumerate(spec.documents):
            yield self._pair(spec, self._enough_of(document), index)

    def _pair(self, spec: RerankSpec, document: str, index: int) -> array[int]:
        bound, tokens = self._encoder.n_text, self._pairing.tokens(document)
        kept = tokens[: spec.max_tokens]
        pair = self._pairing.pair(spec.query, document, kept)
        if len(pair) <= bound:
            return pair
        if not spec.truncate:
            raise ContextLengthExceeded(
                f"Document {index} and the query have at least {len(pair)} tokens, "
                f"{self._config.model_id} takes {bound}: shorten or split the document, or send "
                "`truncate: true` to have its end left away.",
                param="documents",
            )
        fitted = self._pairing.fitted(spec.query, document, bound, spec.max_tokens)
        if fitted is None:
            raise ContextLengthExceeded(
                f"The query leaves no room for a document in the {bound} tokens that "
                f"{self._config.model_id} takes: shorten it.",
                param="query",
            )
        return fitted
