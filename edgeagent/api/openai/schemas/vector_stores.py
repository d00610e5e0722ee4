"""Bodies of `/v1/vector_stores`."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, StringConstraints, model_validator

from edgeagent.api.http.body_base import BodyModel
from edgeagent.api.http.field_support import ExtensionField, IgnoredField, RequestModel
from edgeagent.api.openai.schemas.stored_chats import Metadata

MAX_BATCH = 2000
FileId = Annotated[str, StringConstraints(min_length=1, max_length=100)]
Attributes = Annotated[
    dict[
        Annotated[str, StringConstraints(min_length=1, max_length=64)],
        Annotated[str, StringConstraints(max_length=512)] | bool | float | int,
    ],
    Field(max_length=16),
]
Query = Annotated[str, StringConstraints(min_length=1, max_length=10_000)]


class _Part(BodyModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class ExpiresAfter(_Part):
    anchor: Literal["last_active_at"]
    days: int = Field(ge=1, le=365)


class StaticSizes(_Part):
    """Sizes of chunks in tokens, estimated by 4 bytes of text."""

    max_chunk_size_tokens: int = Field(ge=50, le=4096)
    chunk_overlap_tokens: int = Field(ge=0, le=2048)

    @model_validator(mode="after")
    def _overlap_is_less(self) -> StaticSizes:
        if self.chunk_overlap_tokens > self.max_chunk_size_tokens // 2:
            raise ValueError(
                f"`chunk_overlap_tokens` is {self.chunk_overlap_tokens}, at most half of "
                f"`max_chunk_size_tokens` ({self.max_chunk_size_tokens // 2}) is taken"
            )
        return self


class ChunkingStrategy(_Part):
    type: Literal["auto", "static"]
    static: StaticSizes | None = None

    @model_validator(mode="after")
    def _has_sizes(self) -> ChunkingStrategy:
        if (self.type == "static") != (self.static is not None):
            raise ValueError("`static` goes with the type `static`")
        return self

    @property
    def sizes(self) -> tuple[int, int] | None:
        if self.static is None:
            return None
        return self.static.max_chunk_size_tokens, self.static.chunk_overlap_tokens


class VectorStoreRequest(RequestModel):
    """A new vector store."""

    name: str | None = Field(None, max_length=256)
    description: str | None = Field(None, max_length=512)
    file_ids: list[FileId] | None = Field(None, max_length=MAX_BATCH)
    chunking_strategy: ChunkingStrategy | None = Field(
        None, description="default: knowledge.chunk_tokens and knowledge.overlap_tokens"
    )
    expires_after: ExpiresAfter | None = None
    metadata: Metadata | None = Field(
        None, description="`subject` names the person whom the documents are about"
    )


class VectorStoreChange(RequestModel):
    """New values of a vector store; null or absent: unchanged, except `expires_after`."""

    name: str | None = Field(None, max_length=256)
    description: str | None = Field(None, max_length=512)
    expires_after: ExpiresAfter | None = None
    metadata: Metadata | None = None


class StoreFileRequest(RequestModel):
    """A document for a vector store."""

    file_id: FileId
    attributes: Attributes | None = None
    chunking_strategy: ChunkingStrategy | None = None


class AttributesRequest(RequestModel):
    attributes: Attributes | None


class FileBatchRequest(RequestModel):
    """Documents for a vector store: `file_ids` with common attributes, or `files`, each with its own."""

    file_ids: list[FileId] | None = Field(None, min_length=1, max_length=MAX_BATCH)
    files: list[StoreFileRequest] | None = Field(None, min_length=1, max_length=MAX_BATCH)
    attributes: Attributes | None = None
    chunking_strategy: ChunkingStrategy | None = None

    @model_validator(mode="after")
    def _either(self) -> FileBatchRequest:
        if (self.file_ids is None) == (self.files is None):
            raise ValueError("send either `file_ids` or `files`")
        return self


class HybridSearch(_Part):
    embedding_weight: float = Field(ge=0, le=1)
    text_weight: float = Field(ge=0, le=1)


class RankingOptions(_Part):
    ranker: str | None = Field(
        None, max_length=40, description="`none`: not ranked by a cross-encoder"
    )
    score_threshold: float | None = Field(None, ge=0, le=1)
    hybrid_search: HybridSearch | None = Field(
        None, description="weights of the two lists; 0 leaves one out"
    )

    @property
    def method(self) -> Literal["hybrid", "words", "vectors"]:
        weights = self.hybrid_search
        if weights is not None and weights.embedding_weight == 0:
            return "words"
        if weights is not None and weights.text_weight == 0:
            return "vectors"
        return "hybrid"


class SearchRequest(RequestModel):
    """A search in one vector store."""

    query: Query | Annotated[list[Query], Field(min_length=1, max_length=16)]
    max_num_results: int = Field(10, ge=1, le=50)
    filters: dict[str, Any] | None = None
    ranking_options: RankingOptions | None = None
    rewrite_query: Annotated[bool | None, IgnoredField("no model is asked for another query")] = (
        None
    )
    search_method: Annotated[
        Literal["hybrid", "words", "vectors"] | None, ExtensionField("which index is searched")
    ] = None


class FileCounts(BodyModel):
    in_progress: int
    completed: int
    failed: int
    cancelled: int
    total: int


class VectorStoreBody(BodyModel):
    """A vector store. Times in seconds since 1970."""

    id: str
    object: Literal["vector_store"] = "vector_store"
    created_at: int
    name: str
    description: str | None
    usage_bytes: int
    file_counts: FileCounts
    status: Literal["expired", "in_progress", "completed"]
    expires_after: ExpiresAfter | None
    expires_at: int | None
    last_active_at: int
    metadata: dict[str, str]


class LastError(BodyModel):
    code: Literal["server_error", "unsupported_file", "invalid_file"]
    message: str


class StoreFileBody(BodyModel):
    """A document in a vector store. `id` is that of the file."""

    id: str
    object: Literal["vector_store.file"] = "vector_store.file"
    usage_bytes: int
    created_at: int
    vector_store_id: str
    status: Literal["in_progress", "completed", "failed", "cancelled"]
    last_error: LastError | None
    chunking_strategy: ChunkingStrategy
    attributes: dict[str, str | bool | float | int]


class FileBatchBody(BodyModel):
    """Documents that came together."""

    id: str
    object: Literal["vector_store.files_batch"] = "vector_store.files_batch"
    created_at: int
    vector_store_id: str
    status: Literal["in_progress", "completed", "cancelled", "failed"]
    file_counts: FileCounts


class FoundText(BodyModel):
    type: Literal["text"] = "text"
    text: str


class SearchResult(BodyModel):
    """A passage. `score` 0..1: what it tells about the query, or its relevance by a cross-encoder."""

    file_id: str
    filename: str
    score: float
    attributes: dict[str, str | bool | float | int]
    content: list[FoundText]


class SearchPage(BodyModel):
    object: Literal["vector_store.search_results.page"] = "vector_store.search_results.page"
    search_query: list[str]
    data: list[SearchResult]
    has_more: Literal[False] = False
    next_page: None = None


class FileContentPage(BodyModel):
    """The chunks of a document, in order."""

    object: Literal["vector_store.file_content.page"] = "vector_store.file_content.page"
    data: list[FoundText]
    has_more: Literal[False] = False
    next_page: None = None
