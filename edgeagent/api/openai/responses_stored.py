"""`/v1/responses/{id}` and below: show, follow, cancel and delete responses."""

from __future__ import annotations

from typing import Annotated

from litestar import delete, get, post
from litestar.params import Parameter, QueryParameter
from litestar.types import ASGIApp

from edgeagent.api.http.background_stream import BackgroundStreamResponse
from edgeagent.api.http.caller import ApiRequest, caller_of
from edgeagent.api.http.one_shot_response import JsonResponse
from edgeagent.api.http.response_doc import response_doc
from edgeagent.api.openai.schemas.responses import ResponseAnswer
from edgeagent.api.openai.schemas.shared_request_fields import ErrorBody
from edgeagent.api.openai.schemas.stored_chats import DeletionBody, StoredList
from edgeagent.api.openai.stored_chats import After, Limit, Order, as_list
from edgeagent.errors import InvalidParameter
from edgeagent.serving.conversations import Conversations
from edgeagent.serving.stored_responses import StoredResponses
from edgeagent.settings import Settings
from edgeagent.types.list_pages import PAGE, Page

_TAGS = ["responses"]
_ABSENT = {404: response_doc(ErrorBody, description="Nothing with this id is stored for this key")}

Include = Annotated[list[str] | None, Parameter(description="accepted; everything is shown")]
IncludeList = Annotated[
    list[str] | None, QueryParameter(name="include[]", description="the name in the SDK")
]


@get(
    "/v1/responses/{response_id:str}",
    operation_id="get_response",
    summary="Show a stored response, or a response in the background so far",
    description=(
        "With `stream`, the events of a response in the background after number `starting_after`, while it "
        "is made and for a while after that."
    ),
    tags=_TAGS,
    responses={200: response_doc(ResponseAnswer, description="The response")} | _ABSENT,
)
async def get_response(
    request: ApiRequest,
    responses: StoredResponses,
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
                "`starting_after` is the last event of a stream: add `stream=true`, or leave it out.",
                param="starting_after",
            )
        return JsonResponse(await responses.find(owner, response_id))
    running = await responses.events(owner, response_id)
    n_seen = 0 if starting_after is None else starting_after + 1
    return BackgroundStreamResponse(
        running, n_seen, settings.http.ping_interval_s, settings.http.write_timeout_s
    )


@delete(
    "/v1/responses/{response_id:str}",
    operation_id="delete_response",
    summary="Delete a stored response with its input, also from its conversation",
    tags=_TAGS,
    status_code=200,
    responses=_ABSENT,
)
async def delete_response(
    request: ApiRequest, responses: StoredResponses, response_id: str
) -> DeletionBody:
    await responses.delete(caller_of(request).owner, response_id)
    return DeletionBody(id=response_id, object="response")


@post(
    "/v1/responses/{response_id:str}/cancel",
    operation_id="cancel_response",
    summary="Cancel a response in the background; one that has ended is shown",
    tags=_TAGS,
    status_code=200,
    responses={200: response_doc(ResponseAnswer, description="The response")} | _ABSENT,
)
async def cancel_response(
    request: ApiRequest, responses: StoredResponses, response_id: str
) -> ASGIApp:
    return JsonResponse(await responses.cancel(caller_of(request).owner, response_id))


@get(
    "/v1/responses/{response_id:str}/input_items",
    operation_id="list_input_items",
    summary="List the input of a stored response",
    description="The items of its own request, without the history.",
    tags=_TAGS,
    responses=_ABSENT,
)
async def list_input_items(
    request: ApiRequest,
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
