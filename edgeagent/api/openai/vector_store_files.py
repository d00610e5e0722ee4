"""`/v1/vector_stores/{id}/files` and `/file_batches`: the documents of a knowledge base."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any, Literal

import msgspec
from litestar import delete, get, post
from litestar.response import Stream

from edgeagent.api.http.body import body_operation, read_body
from edgeagent.api.http.caller import ApiRequest, caller_of
from edgeagent.api.http.response_doc import response_doc
from edgeagent.api.openai.schemas.stored_chats import DeletionBody, StoredList
from edgeagent.api.openai.schemas.vector_stores import (
    AttributesRequest,
    ChunkingStrategy,
    FileBatchBody,
    FileBatchRequest,
    FileContentPage,
    LastError,
    StaticSizes,
    StoreFileBody,
    StoreFileRequest,
)
from edgeagent.api.openai.stored_chats import After, Limit, Order, as_list
from edgeagent.api.openai.vector_stores import shown_counts
from edgeagent.serving.knowledge.base import KnowledgeBase
from edgeagent.serving.knowledge.wishes import FileWish
from edgeagent.types.ids import new_id
from edgeagent.types.list_pages import PAGE, Page, RowPage

_TAGS = ["vector stores"]
Status = Literal["in_progress", "completed", "failed", "cancelled"]


def shown_file(row: dict[str, Any]) -> StoreFileBody:
    error = json.loads(row["error"]) if row["error"] else None
    return StoreFileBody(
        id=row["document_id"],
        usage_bytes=row["n_bytes"],
        created_at=row["created_ms"] // 1000,
        vector_store_id=row["store_id"],
        status=row["status"],
        last_error=LastError(**error) if error else None,
        chunking_strategy=ChunkingStrategy(
            type="static",
            static=StaticSizes(
                max_chunk_size_tokens=row["max_tokens"], chunk_overlap_tokens=row["overlap_tokens"]
            ),
        ),
        attributes=json.loads(row["attributes"]),
    )


def shown_batch(batch: dict[str, Any]) -> FileBatchBody:
    counts = shown_counts(batch["counts"])
    status: Status = "in_progress" if counts.in_progress else "completed"
    if not counts.in_progress and counts.cancelled:
        status = "cancelled"
    elif counts.total and counts.failed == counts.total:
        status = "failed"
    return FileBatchBody(
        id=batch["id"],
        created_at=batch["created_ms"] // 1000,
        vector_store_id=batch["store_id"],
        status=status,
        file_counts=counts,
    )


def wish_of(body: StoreFileRequest) -> FileWish:
    return FileWish(
        document_id=body.file_id,
        attributes=body.attributes or {},
        sizes=body.chunking_strategy.sizes if body.chunking_strategy else None,
    )


@post(
    "/v1/vector_stores/{store_id:str}/files",
    operation_class=body_operation(StoreFileRequest),
    operation_id="create_vector_store_file",
    summary="Put a file into a knowledge base",
    description="It is parsed and indexed in the background. `last_error` says why one cannot be read.",
    tags=_TAGS,
    status_code=200,
)
async def add_file(request: ApiRequest, knowledge: KnowledgeBase, store_id: str) -> StoreFileBody:
    body = await read_body(request, StoreFileRequest)
    owner = caller_of(request).owner
    await knowledge.stores.add_files(owner, store_id, [wish_of(body)])
    return shown_file(await knowledge.stores.file(owner, store_id, body.file_id))


@get(
    "/v1/vector_stores/{store_id:str}/files",
    operation_id="list_vector_store_files",
    summary="List the files of a knowledge base",
    tags=_TAGS,
)
async def list_files(
    request: ApiRequest,
    knowledge: KnowledgeBase,
    store_id: str,
    after: After = None,
    limit: Limit = PAGE,
    order: Order = "desc",
    filter: Status | None = None,
) -> StoredList:
    page = Page(after, limit, order == "desc")
    found = await knowledge.stores.files(caller_of(request).owner, store_id, page, status=filter)
    return _shown(found)


@get(
    "/v1/vector_stores/{store_id:str}/files/{document_id:str}",
    operation_id="get_vector_store_file",
    summary="Show a file of a knowledge base",
    tags=_TAGS,
)
async def get_file(
    request: ApiRequest, knowledge: KnowledgeBase, store_id: str, document_id: str
) -> StoreFileBody:
    return shown_file(await knowledge.stores.file(caller_of(request).owner, store_id, document_id))


@post(
    "/v1/vector_stores/{store_id:str}/files/{document_id:str}",
    operation_class=body_operation(AttributesRequest),
    operation_id="change_vector_store_file",
    summary="Replace the attributes of a file",
    tags=_TAGS,
    status_code=200,
)
async def change_file(
    request: ApiRequest, knowledge: KnowledgeBase, store_id: str, document_id: str
) -> StoreFileBody:
    body = await read_body(request, AttributesRequest)
    return shown_file(
        await knowledge.stores.set_attributes(
            caller_of(request).owner, store_id, document_id, body.attributes or {}
        )
    )


@get(
    "/v1/vector_stores/{store_id:str}/files/{document_id:str}/content",
    operation_id="get_vector_store_file_content",
    summary="The chunks of a file",
    tags=_TAGS,
    responses={200: response_doc(FileContentPage, description="The chunks, in order")},
)
async def get_content(
    request: ApiRequest, knowledge: KnowledgeBase, store_id: str, document_id: str
) -> Stream:
    texts = await knowledge.stores.text(caller_of(request).owner, store_id, document_id)
    return Stream(_content_page(texts), media_type="application/json")


async def _content_page(pages: AsyncIterator[list[str]]) -> AsyncIterator[bytes]:
    """A `FileContentPage` in pieces: a document may have many chunks."""
    yield b'{"object":"vector_store.file_content.page","has_more":false,"next_page":null,"data":['
    is_first = True
    async for texts in pages:
        rows = [msgspec.json.encode({"type": "text", "text": text}) for text in texts]
        yield (b"" if is_first else b",") + b",".join(rows)
        is_first = False
    yield b"]}"


@delete(
    "/v1/vector_stores/{store_id:str}/files/{document_id:str}",
    operation_id="delete_vector_store_file",
    summary="Take a file out of a knowledge base; the file stays",
    tags=_TAGS,
    status_code=200,
)
async def remove_file(
    request: ApiRequest, knowledge: KnowledgeBase, store_id: str, document_id: str
) -> DeletionBody:
    await knowledge.stores.remove_file(caller_of(request).owner, store_id, document_id)
    return DeletionBody(id=document_id, object="vector_store.file.deleted")


@post(
    "/v1/vector_stores/{store_id:str}/file_batches",
    operation_class=body_operation(FileBatchRequest),
    operation_id="create_vector_store_file_batch",
    summary="Put many files into a knowledge base",
    tags=_TAGS,
    status_code=200,
)
async def add_batch(request: ApiRequest, knowledge: KnowledgeBase, store_id: str) -> FileBatchBody:
    body = await read_body(request, FileBatchRequest)
    owner, batch_id = caller_of(request).owner, new_id("vsfb")
    if body.files is not None:
        wishes = [wish_of(file) for file in body.files]
    else:
        sizes = body.chunking_strategy.sizes if body.chunking_strategy else None
        wishes = [
            FileWish(document_id=one, attributes=body.attributes or {}, sizes=sizes)
            for one in body.file_ids or []
        ]
    await knowledge.stores.add_files(owner, store_id, wishes, batch_id)
    return shown_batch(await knowledge.stores.batch(owner, store_id, batch_id))


@get(
    "/v1/vector_stores/{store_id:str}/file_batches/{files_batch_id:str}",
    operation_id="get_vector_store_file_batch",
    summary="Show a batch of files",
    tags=_TAGS,
)
async def get_batch(
    request: ApiRequest, knowledge: KnowledgeBase, store_id: str, files_batch_id: str
) -> FileBatchBody:
    return shown_batch(
        await knowledge.stores.batch(caller_of(request).owner, store_id, files_batch_id)
    )


@post(
    "/v1/vector_stores/{store_id:str}/file_batches/{files_batch_id:str}/cancel",
    operation_id="cancel_vector_store_file_batch",
    summary="Leave the files of a batch that are not indexed yet",
    tags=_TAGS,
    status_code=200,
)
async def cancel_batch(
    request: ApiRequest, knowledge: KnowledgeBase, store_id: str, files_batch_id: str
) -> FileBatchBody:
    owner = caller_of(request).owner
    return shown_batch(await knowledge.stores.cancel_batch(owner, store_id, files_batch_id))


@get(
    "/v1/vector_stores/{store_id:str}/file_batches/{files_batch_id:str}/files",
    operation_id="list_vector_store_file_batch_files",
    summary="List the files of a batch",
    tags=_TAGS,
)
async def list_batch_files(
    request: ApiRequest,
    knowledge: KnowledgeBase,
    store_id: str,
    files_batch_id: str,
    after: After = None,
    limit: Limit = PAGE,
    order: Order = "desc",
    filter: Status | None = None,
) -> StoredList:
    owner, page = caller_of(request).owner, Page(after, limit, order == "desc")
    await knowledge.stores.batch(owner, store_id, files_batch_id)
    found = await knowledge.stores.files(
        owner, store_id, page, status=filter, batch_id=files_batch_id
    )
    return _shown(found)


def _shown(found: RowPage) -> StoredList:
    return as_list([shown_file(row).model_dump() for row in found.rows], found.has_more)


HANDLERS = (
    add_file,
    list_files,
    get_file,
    change_file,
    get_content,
    remove_file,
    add_batch,
    get_batch,
    cancel_batch,
    list_batch_files,
)
