"""`/v1/files`: files of requests for batches, and of their answers."""

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
    summary="Send a file of requests for a batch",
    description="A form with `purpose=batch` and `file`: one JSON object a line.",
    tags=_TAGS,
    status_code=200,
    responses={
        200: response_doc(FileBody, description="The file"),
        400: response_doc(ErrorBody, description="The file or its form is not valid"),
        429: response_doc(ErrorBody, description="The owner has too many files"),
    },
)
async def create_file(request: ApiRequest, batch_files: BatchFiles) -> FileBody:
    _, name, data = await read_upload(request, FileForm)
    return shown(await batch_files.add(caller_of(request).owner, name, data))


async def read_upload(request: ApiRequest, model: type[FileForm]) -> tuple[FileForm, str, bytes]:
    """The fields of a form, and the name and content of its file. Raises as `read_form`, and pydantic's
    ValidationError."""
    form = await read_form(request, frozenset())
    fields = model.model_validate(form.fields)
    return fields, form.names.get("file") or "requests.jsonl", form.file("file")


@get("/v1/files", operation_id="list_files", summary="List files", tags=_TAGS)
async def list_files(
    request: ApiRequest,
    batch_files: BatchFiles,
    after: After = None,
    limit: Limit = PAGE,
    order: Order = "desc",
    purpose: str | None = None,
) -> StoredList:
    page = Page(after, limit, order == "desc")
    found = await batch_files.listed(caller_of(request).owner, page, purpose)
    return as_list([shown(row).model_dump() for row in found.rows], found.has_more)


@get("/v1/files/{file_id:str}", operation_id="get_file", summary="Show a file", tags=_TAGS)
async def get_file(request: ApiRequest, batch_files: BatchFiles, file_id: str) -> FileBody:
    return shown(await batch_files.get(caller_of(request).owner, file_id))


@get(
    "/v1/files/{file_id:str}/content",
    operation_id="get_file_content",
    summary="The lines of a file",
    tags=_TAGS,
    media_type="application/jsonl",
)
async def get_file_content(request: ApiRequest, batch_files: BatchFiles, file_id: str) -> Stream:
    pieces = await batch_files.content(caller_of(request).owner, file_id)
    return Stream(pieces, media_type="application/jsonl")


@delete(
    "/v1/files/{file_id:str}",
    operation_id="delete_file",
    summary="Delete a file",
    tags=_TAGS,
    status_code=200,
)
async def delete_file(request: ApiRequest, batch_files: BatchFiles, file_id: str) -> DeletionBody:
    await batch_files.delete(caller_of(request).owner, file_id)
    return DeletionBody(id=file_id, object="file")


HANDLERS = (create_file, list_files, get_file, get_file_content, delete_file)
