"""`/v1/responses/{id}` and below: what is kept of an answer, and the end of one that is still made."""

from __future__ import annotations

from typing import Annotated, Any

from litestar import Request, delete, get, post
from litestar.openapi.datastructures import ResponseSpec
from litestar.params import Parameter, QueryParameter
from litestar.types import ASGIApp

from edgeagent.api.http.background_stream import BackgroundStreamResponse, JsonResponse
from edgeagent.api.http.caller import caller_of
from edgeagent.api.openai.schemas.common import ErrorBody
from edgeagent.api.openai.schemas.responses import ResponseAnswer
from edgeagent.api.openai.schemas.stored_chats import Deleted, StoredList
from edgeagent.api.openai.stored_chats import After, Limit, Order, as_list
from edgeagent.errors import InvalidParameter
from edgeagent.serving.archive import Archive
from edgeagent.serving.background import BackgroundResponses
from edgeagent.serving.conversations import INTERRUPTED, Conversations
from edgeagent.settings import Settings
from edgeagent.store.responses import OPEN
from edgeagent.types.pages import PAGE, Page

_TAGS = ["responses"]
_ABSENT = {404: ResponseSpec(ErrorBody, description="Nothing of that id is stored for this key")}

Call = Request[Any, Any, Any]
Include = Annotated[list[str] | None, Parameter(description="accepted: everything is shown")]
IncludeList = Annotated[
    list[str] | None, QueryParameter(name="include[]", description="as the SDK writes it")
]


def shown(row: dict[str, Any]) -> dict[str, Any]:
    """A stored response as it was sent, or what is left of it."""
    body = row["body"]
    if body is None:
        body = {
            "id": row["id"], "object": "response", "created_at": row["created_ms"] // 1000,
            "model": row["model"], "error": None, "incomplete_details": None, "instructions": None,
            "parallel_tool_calls": True, "tool_choice": "auto", "tools": [], "metadata": {},
            "previous_response_id": row["previous_id"], "usage": None, "text": {},
        }  # fmt: skip
    found: dict[str, Any] = body | {"status": row["status"], "output": row["output"]}
    if row["status"] in OPEN:  # and nobody is at it
        found |= {"status": "failed", "error": INTERRUPTED}
    return found


async def _find(
    owner: str, response_id: str, conversations: Conversations, background: BackgroundResponses
) -> dict[str, Any]:
    live = background.live(owner, response_id)
    return (
        live.show() if live is not None else shown(await conversations.response(owner, response_id))
    )


@get(
    "/v1/responses/{response_id:str}",
    operation_id="get_response",
    summary="Show a stored response, or how far one in the background is",
    description=(
        "With `stream`, the events of a response in the background after number `starting_after`, while "
        "it is made and for a while after it."
    ),
    tags=_TAGS,
    responses={200: ResponseSpec(ResponseAnswer, description="The response")} | _ABSENT,
)
async def get_response(
    request: Call,
    conversations: Conversations,
    background: BackgroundResponses,
    settings: Settings,
    response_id: str,
    stream: bool = False,
    starting_after: Annotated[int | None, Parameter(ge=0, le=1 << 31)] = None,
    include: Include = None,
    include_list: IncludeList = None,
    include_obfuscation: bool | None = None,
) -> ASGIApp:
    owner = caller_of(request).owner
    if not stream:
        if starting_after is not None:
            raise InvalidParameter(
                "`starting_after` says where a stream goes on: add `stream=true`, or leave it out.",
                param="starting_after",
            )
        return JsonResponse(await _find(owner, response_id, conversations, background))
    run = background.find(owner, response_id)
    if run is None:
        await conversations.response(owner, response_id)
        raise InvalidParameter(
            f"The events of {response_id} are not kept any more, or it was not made in the background: "
            "leave `stream` out.",
            param="stream",
        )
    n_seen = 0 if starting_after is None else starting_after + 1
    return BackgroundStreamResponse(
        run, n_seen, settings.http.ping_interval_s, settings.http.write_timeout_s
    )


@delete(
    "/v1/responses/{response_id:str}",
    operation_id="delete_response",
    summary="Delete a stored response with what was asked, also from its conversation",
    tags=_TAGS,
    status_code=200,
    responses=_ABSENT,
)
async def delete_response(
    request: Call,
    archive: Archive,
    conversations: Conversations,
    background: BackgroundResponses,
    response_id: str,
) -> Deleted:
    owner = caller_of(request).owner
    await conversations.response(owner, response_id)
    await background.end(owner, response_id)
    await archive.delete_response(owner, response_id)
    return Deleted(id=response_id, object="response")


@post(
    "/v1/responses/{response_id:str}/cancel",
    operation_id="cancel_response",
    summary="End a response in the background; one that has ended is shown",
    tags=_TAGS,
    status_code=200,
    responses={200: ResponseSpec(ResponseAnswer, description="The response")} | _ABSENT,
)
async def cancel_response(
    request: Call, conversations: Conversations, background: BackgroundResponses, response_id: str
) -> ASGIApp:
    owner = caller_of(request).owner
    found = await _find(owner, response_id, conversations, background)
    if not found.get("background"):
        raise InvalidParameter(
            f"{response_id} was not made in the background: close its connection to end one that is.",
            param="response_id",
        )
    run = background.live(owner, response_id)
    if run is None:
        return JsonResponse(found)
    await run.cancel()
    return JsonResponse(await _find(owner, response_id, conversations, background))


@get(
    "/v1/responses/{response_id:str}/input_items",
    operation_id="list_input_items",
    summary="List what a stored response was asked",
    description="The items of its own request, without what stood before.",
    tags=_TAGS,
    responses=_ABSENT,
)
async def list_input_items(
    request: Call,
    conversations: Conversations,
    response_id: str,
    after: After = None,
    limit: Limit = PAGE,
    order: Order = "desc",
    include: Include = None,
    include_list: IncludeList = None,
) -> StoredList:
    page = Page(after, limit, order == "desc")
    found = await conversations.input_items(caller_of(request).owner, response_id, page)
    return as_list([row["body"] for row in found.rows], found.has_more)


HANDLERS = [get_response, delete_response, cancel_response, list_input_items]
