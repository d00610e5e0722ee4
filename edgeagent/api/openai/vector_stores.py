"""`/v1/vector_stores`: knowledge bases, and searches in them."""

from __future__ import annotations

import json
from typing import Any

from litestar import delete, get, post

from edgeagent.api.http.body import body_operation, read_body
from edgeagent.api.http.caller import ApiRequest, caller_of
from edgeagent.api.http.response_doc import response_doc
from edgeagent.api.openai.schemas.shared_request_fields import ErrorBody
from edgeagent.api.openai.schemas.stored_chats import DeletionBody, StoredList
from edgeagent.api.openai.schemas.vector_stores import (
    ExpiresAfter,
    FileCounts,
    FoundText,
    SearchPage,
    SearchRequest,
    SearchResult,
    VectorStoreBody,
    VectorStoreChange,
    VectorStoreRequest,
)
from edgeagent.api.openai.stored_chats import After, Limit, Order, as_list
from edgeagent.serving.knowledge.base import KnowledgeBase
from edgeagent.serving.knowledge.wishes import FileWish, Passage, SearchWish, expires_ms, is_expired
from edgeagent.types.list_pages import PAGE, Page

_TAGS = ["vector stores"]


def shown(row: dict[str, Any]) -> VectorStoreBody:
    days = row["expires_days"]
    counts = shown_counts(row["counts"])
    ends_ms = expires_ms(row)
    return VectorStoreBody(
        id=row["id"],
        created_at=row["created_ms"] // 1000,
        name=row["name"],
        description=row["description"],
        usage_bytes=row["n_bytes"],
        file_counts=counts,
        status="expired"
        if is_expired(row)
        else "in_progress"
        if counts.in_progress
        else "completed",
        expires_after=None if days is None else ExpiresAfter(anchor="last_active_at", days=days),
        expires_at=None if ends_ms is None else ends_ms // 1000,
        last_active_at=row["used_ms"] // 1000,
        metadata=json.loads(row["metadata"]),
    )


def shown_counts(counts: dict[str, int]) -> FileCounts:
    return FileCounts(
        in_progress=counts.get("in_progress", 0),
        completed=counts.get("completed", 0),
        failed=counts.get("failed", 0),
        cancelled=counts.get("cancelled", 0),
        total=sum(counts.values()),
    )


@post(
    "/v1/vector_stores",
    operation_class=body_operation(VectorStoreRequest),
    operation_id="create_vector_store",
    summary="Make a knowledge base",
    description="Its documents are indexed in the background; `file_counts` says how far that is.",
    tags=_TAGS,
    status_code=200,
    responses={
        200: response_doc(VectorStoreBody, description="The vector store"),
        400: response_doc(ErrorBody, description="The request is not valid"),
        404: response_doc(ErrorBody, description="A file is not among those of this key"),
        429: response_doc(ErrorBody, description="The owner has too many vector stores"),
    },
)
async def create_vector_store(request: ApiRequest, knowledge: KnowledgeBase) -> VectorStoreBody:
    body = await read_body(request, VectorStoreRequest)
    sizes = body.chunking_strategy.sizes if body.chunking_strategy else None
    row = await knowledge.stores.create(
        caller_of(request).owner,
        name=body.name or "",
        description=body.description,
        metadata=body.metadata or {},
        expires_days=body.expires_after.days if body.expires_after else None,
        files=[FileWish(document_id=one, sizes=sizes) for one in body.file_ids or []],
    )
    return shown(row)


@get(
    "/v1/vector_stores",
    operation_id="list_vector_stores",
    summary="List knowledge bases",
    tags=_TAGS,
)
async def list_vector_stores(
    request: ApiRequest,
    knowledge: KnowledgeBase,
    after: After = None,
    limit: Limit = PAGE,
    order: Order = "desc",
) -> StoredList:
    found = await knowledge.stores.listed(
        caller_of(request).owner, Page(after, limit, order == "desc")
    )
    return as_list([shown(row).model_dump() for row in found.rows], found.has_more)


@get(
    "/v1/vector_stores/{store_id:str}",
    operation_id="get_vector_store",
    summary="Show a knowledge base",
    tags=_TAGS,
)
async def get_vector_store(
    request: ApiRequest, knowledge: KnowledgeBase, store_id: str
) -> VectorStoreBody:
    return shown(await knowledge.stores.get(caller_of(request).owner, store_id))


@post(
    "/v1/vector_stores/{store_id:str}",
    operation_class=body_operation(VectorStoreChange),
    operation_id="change_vector_store",
    summary="Change name, metadata or expiry of a knowledge base",
    tags=_TAGS,
    status_code=200,
)
async def change_vector_store(
    request: ApiRequest, knowledge: KnowledgeBase, store_id: str
) -> VectorStoreBody:
    body = await read_body(request, VectorStoreChange)
    fields = body.model_dump(include={"name", "description", "metadata"}, exclude_none=True)
    if "expires_after" in body.model_fields_set:
        fields["expires_days"] = body.expires_after.days if body.expires_after else None
    return shown(await knowledge.stores.change(caller_of(request).owner, store_id, fields))


@delete(
    "/v1/vector_stores/{store_id:str}",
    operation_id="delete_vector_store",
    summary="Delete a knowledge base; its files stay",
    tags=_TAGS,
    status_code=200,
)
async def delete_vector_store(
    request: ApiRequest, knowledge: KnowledgeBase, store_id: str
) -> DeletionBody:
    await knowledge.stores.delete(caller_of(request).owner, store_id)
    return DeletionBody(id=store_id, object="vector_store.deleted")


@post(
    "/v1/vector_stores/{store_id:str}/search",
    operation_class=body_operation(SearchRequest),
    operation_id="search_vector_store",
    summary="Search a knowledge base",
    description=(
        "By words and by vectors, fused by rank, and ranked again where a cross-encoder is installed. "
        "Several queries are searched as one text."
    ),
    tags=_TAGS,
    status_code=200,
    responses={
        200: response_doc(SearchPage, description="The passages, the best first"),
        400: response_doc(ErrorBody, description="The request is not valid"),
        404: response_doc(ErrorBody, description="Unknown vector store"),
    },
)
async def search_vector_store(
    request: ApiRequest, knowledge: KnowledgeBase, store_id: str
) -> SearchPage:
    body = await read_body(request, SearchRequest)
    queries = [body.query] if isinstance(body.query, str) else body.query
    ranking = body.ranking_options
    wish = SearchWish(
        query="\n".join(queries),
        store_ids=[store_id],
        n_results=body.max_num_results,
        least_score=(ranking.score_threshold if ranking else None) or 0.0,
        filters=body.filters,
        reranks=ranking is None or ranking.ranker != "none",
        method=body.search_method or (ranking.method if ranking else "hybrid"),
    )
    found = await knowledge.retrieval.search(caller_of(request).owner, wish)
    return SearchPage(search_query=queries, data=[result(passage) for passage in found])


def result(passage: Passage) -> SearchResult:
    return SearchResult(
        file_id=passage.file_id,
        filename=passage.name,
        score=passage.score,
        attributes=passage.attributes,
        content=[FoundText(text=passage.content)],
    )


HANDLERS = (
    create_vector_store,
    list_vector_stores,
    get_vector_store,
    change_vector_store,
    delete_vector_store,
    search_vector_store,
)
