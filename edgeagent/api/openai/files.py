"""`/v1/files`: files of requests for batches and of their answers, and documents of knowledge bases."""

from __future__ import annotations

from typing import Any

from litestar import delete, get, post
from litestar.response import Stream

from edgeagent.api.http.body import body_operation
from edgeagent.api.http.caller import ApiRequest, caller_of
from edgeagent.api.http.forms import read_form
from edgeagent.api.http.response_doc import response_doc
from edgeagent.api.openai.schemas.batches import FileBody, FileForm
from edgeagent.api.openai.schemas.shared_request_fields import ErrorBody
from edgeagent.api.openai.schemas.stored_chats import DeletionBody, StoredList
from edgeagent.api.openai.stored_chats import After, Limit, Order, as_list
from edgeagent.serving.batches import BatchFiles
from edgeagent.serving.knowledge.base import KnowledgeBase
from edgeagent.types.list_pages import PAGE, Page

_TAGS = ["batches"]


def shown(row: dict[str, Any]) -> FileBody:
    return FileBody(
        id=row["id"],
        bytes=row["n_bytes"],
        created_at=row["created_ms"] // 1000,
        filename=row["name"],
        purpose=row["purpose"],
    )


@post(
    "/v1/files",
    operation_class=body_operation(FileForm, "multipart/form-data"),
    operation_id="create_file",
    summary="Send a file of requests for a batch, or a document",
    description=(
        "A form with `purpose` and `file`: with `batch`, one JSON object a line; with `assistants` or "
        "`user_data` a document in Markdown, text, HTML, PDF, Word or CSV."
    ),
    tags=_TAGS,
    status_code=200,
    responses={
        200: response_doc(FileBody, description="The file"),
        400: response_doc(ErrorBody, description="The file or its form is not valid"),
        429: response_doc(ErrorBody, description="The owner has too many files"),
    },
)
async def create_file(
    request: ApiRequest, batch_files: BatchFiles, knowledge: KnowledgeBase
) -> FileBody:
    fields, name, data = await read_upload(request, FileForm)
    owner = caller_of(request).owner
    if fields.purpose != "batch":
        return shown(await knowledge.documents.add(owner, name, fields.purpose, data))
    return shown(await batch_files.add(owner, name, data))


async def read_upload(request: ApiRequest, model: type[FileForm]) -> tuple[FileForm, str, bytes]:
    """The fields of a form, and the name and content of its file. Raises as `read_form`, and pydantic's
    ValidationError."""
    form = await read_form(request, frozenset())
    fields = model.model_validate(form.fields)
    return fields, form.names.get("file") or "requests.jsonl", form.file("file")


@get("/v1/files", operation_id="list_files", summary="List files", tags=_TAGS)
async def list_files(
    request: ApiRequest,
    knowledge: KnowledgeBase,
    after: After = None,
    limit: Limit = PAGE,
    order: Order = "desc",
    purpose: str | None = None,
) -> StoredList:
    page = Page(after, limit, order == "desc")
    found = await knowledge.documents.all_files(caller_of(request).owner, page, purpose)
    return as_list([shown(row).model_dump() for row in found.rows], found.has_more)


@get("/v1/files/{file_id:str}", operation_id="get_file", summary="Show a file", tags=_TAGS)
async def get_file(
    request: ApiRequest, batch_files: BatchFiles, knowledge: KnowledgeBase, file_id: str
) -> FileBody:
    owner = caller_of(request).owner
    found = await knowledge.documents.find(owner, file_id)
    return shown(found or await batch_files.get(owner, file_id))


@get(
    "/v1/files/{file_id:str}/content",
    operation_id="get_file_content",
    summary="The content of a file",
    tags=_TAGS,
    media_type="application/jsonl",
)
async def get_file_content(
    request: ApiRequest, batch_files: BatchFiles, knowledge: KnowledgeBase, file_id: str
) -> Stream:
    owner = caller_of(request).owner
    if await knowledge.documents.find(owner, file_id) is not None:
        # Never shown by a browser as what its sender says it is.
        return Stream(
            await knowledge.documents.content(owner, file_id), media_type="application/octet-stream"
        )
    pieces = await batch_files.content(owner, file_id)
    return Stream(pieces, media_type="application/jsonl")


@delete(
    "/v1/files/{file_id:str}",
    operation_id="delete_file",
    summary="Delete a file",
    tags=_TAGS,
    status_code=200,
)
async def delete_file(
    request: ApiRequest, batch_files: BatchFiles, knowledge: KnowledgeBase, file_id: str
) -> DeletionBody:
    owner = caller_of(request).owner
    if await knowledge.documents.find(owner, file_id) is not None:
        await knowledge.documents.delete(owner, file_id)
    else:
        await batch_files.delete(owner, file_id)
    return DeletionBody(id=file_id, object="file")


HANDLERS = (create_file, list_files, get_file, get_file_content, delete_file)
