"""`GET /v1/chat/completions` and below: stored chats; also usage, feedback and search."""

from __future__ import annotations

import time
from typing import Annotated, Any, Literal

from litestar import delete, get, post
from litestar.params import Parameter

from edgeagent.api.http.body import body_operation, read_body
from edgeagent.api.http.caller import ApiRequest, caller_of
from edgeagent.api.openai.schemas.stored_chats import (
    DeletionBody,
    FeedbackRequest,
    MetadataRequest,
    StoredList,
    UsageReport,
)
from edgeagent.serving.content_archive import Archive
from edgeagent.serving.stored_chats import StoredChats
from edgeagent.types.list_pages import MAX_PAGE, PAGE, Page

_DAY_S = 86_400
_TAGS = ["stored"]

After = Annotated[
    str | None, Parameter(max_length=100, description="id of the last item of the previous page")
]
Limit = Annotated[int, Parameter(ge=1, le=MAX_PAGE, description="maximum of one page")]
Order = Literal["asc", "desc"]


def as_list(rows: list[dict[str, Any]], has_more: bool) -> StoredList:
    """A page in the format of the API."""
    return StoredList(
        data=rows,
        first_id=rows[0]["id"] if rows else None,
        last_id=rows[-1]["id"] if rows else None,
        has_more=has_more,
    )


@get("/v1/chat/completions", operation_id="list_chats", summary="List stored chats", tags=_TAGS)
async def list_chats(
    request: ApiRequest,
    stored_chats: StoredChats,
    after: After = None,
    limit: Limit = PAGE,
    order: Order = "asc",
    model: str | None = None,
) -> StoredList:
    page = Page(after, limit, order == "desc")
    found = await stored_chats.listed(caller_of(request).owner, page, model)
    return as_list(found.rows, found.has_more)


@get(
    "/v1/chat/completions/{completion_id:str}",
    operation_id="get_chat",
    summary="Show a stored chat",
    tags=_TAGS,
)
async def get_chat(
    request: ApiRequest, stored_chats: StoredChats, completion_id: str
) -> dict[str, Any]:
    return await stored_chats.find(caller_of(request).owner, completion_id)


@post(
    "/v1/chat/completions/{completion_id:str}",
    operation_class=body_operation(MetadataRequest),
    operation_id="update_chat",
    summary="Change the metadata of a stored chat",
    tags=_TAGS,
    status_code=200,
)
async def update_chat(
    request: ApiRequest, stored_chats: StoredChats, completion_id: str
) -> dict[str, Any]:
    body = await read_body(request, MetadataRequest)
    owner = caller_of(request).owner
    return await stored_chats.update(owner, completion_id, body.metadata or {})


@delete(
    "/v1/chat/completions/{completion_id:str}",
    operation_id="delete_chat",
    summary="Delete a stored chat",
    tags=_TAGS,
    status_code=200,
)
async def delete_chat(
    request: ApiRequest, stored_chats: StoredChats, completion_id: str
) -> DeletionBody:
    await stored_chats.delete(caller_of(request).owner, completion_id)
    return DeletionBody(id=completion_id, object="chat.completion.deleted")


@get(
    "/v1/chat/completions/{completion_id:str}/messages",
    operation_id="list_chat_messages",
    summary="List the messages of the request of a stored chat",
    tags=_TAGS,
)
async def list_messages(
    request: ApiRequest,
    stored_chats: StoredChats,
    completion_id: str,
    after: After = None,
    limit: Limit = PAGE,
    order: Order = "asc",
) -> StoredList:
    page = Page(after, limit, order == "desc")
    found = await stored_chats.messages(caller_of(request).owner, completion_id, page)
    return as_list(found.rows, found.has_more)


@get(
    "/v1/usage",
    operation_id="usage",
    summary="Requests and tokens by day and model",
    description="For the owner of the key. `since` and `until` in Unix seconds; the last 30 days by default. "
    "Requests of the last seconds may be missing, since rows are written in groups.",
    tags=_TAGS,
)
async def usage(
    request: ApiRequest,
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
    summary="Rate an answer",
    description="The newest feedback on an answer counts. Where a route has chosen its model, `edgeagent "
    "route replay`, `train` and `calibrate` learn from it: from `label` where it is given; else a rating of "
    "1 is right, -1 and a `correction` are wrong, and 0 says nothing. `target_id` may be the x-request-id "
    "of an answer that is not stored.",
    tags=_TAGS,
    status_code=201,
)
async def give_feedback(request: ApiRequest, archive: Archive) -> dict[str, Any]:
    body = await read_body(request, FeedbackRequest)
    await archive.rate(
        caller_of(request).owner, body.target_id, body.rating, body.comment, label=body.label,
        correction=body.correction,
    )  # fmt: skip
    return {"object": "feedback", "target_id": body.target_id, "rating": body.rating}


@get(
    "/v1/search",
    operation_id="search",
    summary="Search what is stored",
    description="Items that contain all words of `q`; the last word may be a prefix.",
    tags=_TAGS,
)
async def find(
    request: ApiRequest,
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
