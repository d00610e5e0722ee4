"""Bodies of `POST /v1/rerank`, as Jina and Cohere have them."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, field_validator

from edgeagent.api.schemas.marks import Extension, Ignored, RequestModel
from edgeagent.errors import InvalidParameter

# As Jina's.
MAX_DOCUMENTS = 2048


class RankedText(BaseModel):
    """A document as an object."""

    model_config = ConfigDict(extra="forbid", strict=True)

    text: str


class RerankRequest(RequestModel):
    """A query, and documents to order by how well they answer it."""

    model: str | None = Field(
        None, max_length=200, description="a model id; without it, the first that ranks"
    )
    query: Annotated[str, Field(min_length=1)]
    documents: Annotated[
        list[str | RankedText],
        Field(
            min_length=1, max_length=MAX_DOCUMENTS, description="texts, or objects with a `text`"
        ),
    ]
    top_n: int | None = Field(None, ge=1, description="leave away all but the best of them")
    return_documents: bool | None = Field(None, description="repeat each document in its result")
    max_tokens_per_doc: int | None = Field(
        None, ge=1, le=1 << 20, description="read that many tokens of each document at most"
    )
    user: Annotated[str | None, Ignored()] = None
    priority: Annotated[
        int | None, Ignored("documents are scored in turn with other requests'")
    ] = None
    truncate: Annotated[
        bool, Extension("leave away the end of a document that does not fit beside the query")
    ] = False

    @field_validator("documents", mode="before")
    @classmethod
    def _say_what_is_wrong(cls, value: Any) -> Any:
        """A union's own complaint would be about its first type."""
        if not isinstance(value, list) or not value:
            raise InvalidParameter(
                "`documents` is empty or no list: send a list of texts, or of objects with a `text`.",
                param="documents",
            )
        for index, item in enumerate(value):
            text = item.get("text") if isinstance(item, dict) else item
            if not isinstance(text, str) or not text or (isinstance(item, dict) and len(item) > 1):
                raise InvalidParameter(
                    f"`documents` {index} is no text: send a text that is not empty, or an object with "
                    "nothing but a `text`.",
                    param="documents",
                )
        return value

    def texts(self) -> list[str]:
        return [item if isinstance(item, str) else item.text for item in self.documents]


class RerankResult(BaseModel):
    """`index` counts the documents of the request from 0; `relevance_score` is 0..1."""

    index: int
    relevance_score: float
    document: RankedText | None = Field(None, description="with `return_documents` only")


class RerankUsage(BaseModel):
    """Tokens of the query and a document, added up over all documents."""

    prompt_tokens: int
    total_tokens: int


class RerankTimings(BaseModel):
    """Extension. Milliseconds from arrival at the engine."""

    queue_ms: float
    total_ms: float


class RerankAnswer(BaseModel):
    """The documents, the most relevant first."""

    id: str
    model: str
    results: list[RerankResult]
    usage: RerankUsage
    timings: RerankTimings
