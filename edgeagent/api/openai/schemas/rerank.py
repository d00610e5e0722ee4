"""Bodies of `POST /v1/rerank`, in the formats of Jina, Cohere and Text Embeddings Inference."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import (
    ConfigDict,
    Field,
    ValidationInfo,
    field_validator,
    model_validator,
)

from edgeagent.api.http.body_base import BodyModel
from edgeagent.api.http.field_support import ExtensionField, IgnoredField, RequestModel
from edgeagent.errors import InvalidParameter

# Jina's limit.
MAX_DOCUMENTS = 2048


class RankedText(BodyModel):
    """A document as an object."""

    model_config = ConfigDict(extra="forbid", strict=True)

    text: str


class RerankRequest(RequestModel):
    """A query, and documents to rank by their relevance to it."""

    model: str | None = Field(
        None, max_length=200, description="a model id; default: the first ranking model"
    )
    query: Annotated[str, Field(min_length=1)]
    documents: (
        Annotated[list[str | RankedText], Field(min_length=1, max_length=MAX_DOCUMENTS)] | None
    ) = Field(None, description="texts, or objects with a `text`")
    texts: Annotated[list[str], Field(min_length=1, max_length=MAX_DOCUMENTS)] | None = Field(
        None,
        description="instead of `documents`, as in Text Embeddings Inference; the answer is then a list of "
        "`index` and `score`",
    )
    return_text: bool | None = Field(None, description="repeat each of the `texts`")
    raw_scores: Annotated[bool | None, IgnoredField("scores are 0..1")] = None
    truncation_direction: Annotated[str | None, IgnoredField("the end is cut off")] = None
    top_n: int | None = Field(None, ge=1, description="return only this many of the best")
    return_documents: bool | None = Field(None, description="repeat each document in its result")
    max_tokens_per_doc: int | None = Field(
        None, ge=1, le=1 << 20, description="read at most this many tokens of each document"
    )
    user: Annotated[str | None, IgnoredField()] = None
    priority: Annotated[
        int | None, IgnoredField("documents are scored in turn with other requests'")
    ] = None
    truncate: Annotated[
        bool, ExtensionField("cut off the end of a document that does not fit with the query")
    ] = False

    @model_validator(mode="after")
    def _has_one_list(self) -> RerankRequest:
        if (self.documents is None) == (self.texts is None):
            raise InvalidParameter(
                "`documents` is empty or not a list: send a list of texts, or of objects with a `text`; or "
                "`texts` instead of it.",
                param="documents",
            )
        return self

    @field_validator("documents", "texts", mode="before")
    @classmethod
    def _say_what_is_wrong(cls, value: Any, info: ValidationInfo) -> Any:
        """A union's own complaint would be about its first type."""
        if value is None:
            return None
        if not isinstance(value, list) or not value:
            raise InvalidParameter(
                f"`{info.field_name}` is empty or not a list: send a list of texts, or of objects with a "
                "`text`.",
                param=info.field_name,
            )
        for index, item in enumerate(value):
            text = item.get("text") if isinstance(item, dict) else item
            if not isinstance(text, str) or not text or (isinstance(item, dict) and len(item) > 1):
                raise InvalidParameter(
                    f"`{info.field_name}` {index} is not text: send a text that is not empty, or an object "
                    "with only a `text`.",
                    param=info.field_name,
                )
        return value

    def inputs(self) -> list[str]:
        """The documents as text."""
        items = self.texts or self.documents or []
        return [item if isinstance(item, str) else item.text for item in items]


class RerankResult(BodyModel):
    """`index` counts the documents of the request from 0; `relevance_score` is 0..1."""

    index: int
    relevance_score: float
    document: RankedText | None = Field(None, description="with `return_documents` only")


class RerankUsage(BodyModel):
    """Tokens of the query and a document, added up over all documents."""

    prompt_tokens: int
    total_tokens: int


class RerankTimings(BodyModel):
    """Extension. Milliseconds from arrival at the engine."""

    queue_ms: float
    total_ms: float


class RerankAnswer(BodyModel):
    """The documents, the most relevant first."""

    id: str
    model: str
    results: list[RerankResult]
    usage: RerankUsage
    timings: RerankTimings
