"""`GET /v1/chat/completions` and below: answers that were asked to be stored; usage, feedback, search."""

from __future__ import annotations

import time
from typing import Annotated, Any, Literal

from litestar import Request, delete, get, post
from litestar.params import Parameter

from edgeagent.api.http.body import body_operation, read_body
from edgeagent.api.http.caller import caller_of
from edgeagent.api.openai.schemas.stored_chats import (
    Deleted,
    FeedbackRequest,
    MetadataRequest,
    StoredList,
    UsageReport,
)
from edgeagent.errors import NotFound
from edgeagent.serving.archive import Archive
from edgeagent.types.ids import CHAT_PREFIX
from edgeagent.types.pages import MAX_PAGE, PAGE, Page

_DAY_S = 86_400
_TAGS = ["stored"]

After = Annotated[str | None, Parameter(max_length=100, description="id of the last one seen")]
Limit = Annotated[int, Parameter(ge=1, le=MAX_PAGE, description="most of one page")]
Order = Literal["asc", "desc"]
Call = Request[Any, Any, Any]


def as_list(rows: list[dict[str, Any]], has_more: bool) -> StoredList:
    """A page as the API shows it."""
    return StoredList(
        data=rows,
        first_id=rows[0]["id"] if rows else None,
        last_id=rows[-1]["id"] if rows else None,
        has_more=has_more,
    )


def _shown(row: dict[str, Any]) -> dict[str, Any]:
    """A stored answer as it was sent, or what is left of it."""
    if row["body"] is not None:
        return dict(row["body"])
    return {
        "id": row["id"], "object": "chat.completion", "created": row["created_ms"] // 1000,
        "model": row["model"], "choices": [], "metadata": {},
    }  # fmt: skip


async def _chat(archive: Archive, request: Call, completion_id: str) -> dict[str, Any]:
    if not completion_id.startswith(CHAT_PREFIX):
        raise NotFound(
            f"{completion_id[:80]!r} is no chat completion: its id begins with {CHAT_PREFIX}."
        )
    return await archive.response(caller_of(request).owner, completion_id)


@get("/v1/chat/completions", operation_id="list_chats", summary="List stored chats", tags=_TAGS)
async def list_chats(
    request: Call,
    archive: Archive,
    after: After = None,
    limit: Limit = PAGE,
    order: Order = "asc",
    model: str | None = None,
) -> StoredList:
    page = Page(after, limit, order == "desc")
    found = await archive.responses(caller_of(request).owner, page, prefix=CHAT_PREFIX, model=model)
    return as_list([_shown(row) for row in found.rows], found.has_more)


@get(
    "/v1/chat/completions/{completion_id:str}",
    operation_id="get_chat",
    summary="Show a stored chat",
    tags=_TAGS,
)
async def get_chat(request: Call, archive: Archive, completion_id: str) -> dict[str, Any]:
    return _shown(await _chat(archive, request, completion_id))


@post(
    "/v1/chat/completions/{completion_id:str}",
    operation_class=body_operation(MetadataRequest),
    operation_id="update_chat",
    summary="Change the metadata of a stored chat",
    tags=_TAGS,
    status_code=200,
)
async def update_chat(request: Call, archive: Archive, completion_id: str) -> dict[str, Any]:
    body = await read_body(request, MetadataRequest)
    await _chat(archive, request, completion_id)
    row = await archive.relabel(caller_of(request).owner, completion_id, body.metadata or {})
    return _shown(row)


@delete(
    "/v1/chat/completions/{completion_id:str}",
    operation_id="delete_chat",
    summary="Delete a stored chat",
    tags=_TAGS,
    status_code=200,
)
async def delete_chat(request: Call, archive: Archive, completion_id: str) -> Deleted:
    await _chat(archive, request, completion_id)
    await archive.delete_response(caller_of(request).owner, completion_id)
    return Deleted(id=completion_id, object="chat.completion.deleted")


@get(
    "/v1/chat/completions/{completion_id:str}/messages",
    operation_id="list_chat_messages",
    summary="List what was asked in a stored chat",
    tags=_TAGS,
)
async def list_messages(
    request: Call,
    archive: Archive,
    completion_id: str,
    after: After = None,
    limit: Limit = PAGE,
    order: Order = "asc",
) -> StoredList:
    await _chat(archive, request, completion_id)
    owner = caller_of(request).owner
    page = Page(after, limit, order == "desc")
    found = await archive.items(owner, "response_id", completion_id, page)
    rows = [
        {"id": row["id"]} | (row["body"] or {})
        for row in found.rows
        if row["is_input"]
        and row["kind"] not in ("function_call", "custom_tool_call")  # its message has it
    ]
    return as_list(rows, found.has_more)


@get(
    "/v1/usage",
    operation_id="usage",
    summary="Requests and tokens by day and model",
    description="Of the key's owner. `since` and `until` in Unix seconds; the last 30 days by default. "
    "Requests of the last seconds may be missing: they are written together.",
    tags=_TAGS,
)
async def usage(
    request: Call,
    archive: Archive,
    since: Annotated[int | None, Parameter(ge=0, le=1 << 40)] = None,
    until: Annotated[int | None, Parameter(ge=0, le=1 << 40)] = None,
) -> UsageReport:
    until_s = until if until is not None else int(time.time()) + 1
    since_s = since if since is not None else max(0, until_s - 30 * _DAY_S)
    rows = await archive.usage(
        caller_of(request).owner, since_ms=1000 * since_s, until_ms=1000 * until_s
    )
    return UsageReport.model_validate({"since": since_s, "until": until_s, "data": rows})


@post(
    "/v1/feedback",
    operation_class=body_operation(FeedbackRequest),
    operation_id="feedback",
    summary="Say what an answer was worth",
    tags=_TAGS,
    status_code=201,
)
async def give_feedback(request: Call, archive: Archive) -> dict[str, Any]:
    body = await read_body(request, FeedbackRequest)
    await archive.rate(caller_of(request).owner, body.target_id, body.rating, body.comment)
    return {"object": "feedback", "target_id": body.target_id, "rating": body.rating}


@get(
    "/v1/search",
    operation_id="search",
    summary="Search what is stored",
    description="Items that have all the words of `q`; the last word may be only begun.",
    tags=_TAGS,
)
async def find(
    request: Call,
    archive: Archive,
    q: Annotated[str, Parameter(min_length=1, max_length=1000)],
    limit: Limit = PAGE,
) -> StoredList:
    return as_list(await archive.find(caller_of(request).owner, q, limit), False)


HANDLERS = [
    list_chats,
    get_chat,
    update_chat,
    delete_chat,
    list_messages,
    usage,
    give_feedback,
    find,
]
