"""`/v1/bots`: messages to published bots, and `/web/widget.js`, the chat for web pages."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path

from litestar import Response, get, post

from edgeagent.api.bots.schemas import BotBody, MessageBody, MessageRequest
from edgeagent.api.http.body import body_operation, read_body
from edgeagent.api.http.caller import ApiRequest, caller_of
from edgeagent.api.http.response_doc import response_doc
from edgeagent.api.openai.schemas.shared_request_fields import ErrorBody
from edgeagent.serving.bots.bot_service import BotService

WIDGET = Path(__file__).parents[2] / "web" / "widget.js"
AGE_S = 3600

_REFUSED = {
    403: response_doc(ErrorBody, description="The key is for another bot, or for other pages"),
    404: response_doc(ErrorBody, description="Unknown bot"),
}


@get(
    "/v1/bots/{bot_id:str}",
    operation_id="show_bot",
    summary="Name and greeting of a published bot",
    tags=["bots"],
    responses=_REFUSED,
)
async def show_bot(request: ApiRequest, bots: BotService, bot_id: str) -> BotBody:
    found = (await bots.show(caller_of(request), bot_id, _origin(request))).bot
    return BotBody(
        id=bot_id, name=found.name, title=found.web.title or found.name, greeting=found.greeting,
        languages=found.languages,
    )  # fmt: skip


@post(
    "/v1/bots/{bot_id:str}/messages",
    operation_class=body_operation(MessageRequest),
    operation_id="say_to_bot",
    summary="Say something to a published bot",
    description=(
        "With a key of `edgeagent bot publish`, from its pages; or with any key of the bot's owner that has "
        "the scope `bot`. An answer of the basis `call` has no text: the page is asked to do something."
    ),
    tags=["bots"],
    status_code=200,
    responses=_REFUSED
    | {
        400: response_doc(ErrorBody, description="The request is not valid"),
        429: response_doc(ErrorBody, description="A limit of the key is reached"),
        503: response_doc(ErrorBody, description="The bot cannot answer now"),
    },
)
async def say_to_bot(request: ApiRequest, bots: BotService, bot_id: str) -> MessageBody:
    body = await read_body(request, MessageRequest)
    caller = caller_of(request)
    told = await bots.answer(caller, bot_id, _origin(request), body.text, body.conversation)
    answer = told.answer
    return MessageBody(
        conversation=told.conversation, text=answer.text, basis=answer.basis, intent=answer.intent,
        slots=answer.slots, citations=answer.citations, handover=answer.handover,
    )  # fmt: skip


@get(
    "/web/widget.js",
    operation_id="widget",
    summary="The script that puts a published bot into a web page",
    tags=["bots"],
    sync_to_thread=True,
)
def widget(request: ApiRequest) -> Response[bytes]:
    data = WIDGET.read_bytes()
    etag = f'"{sha256(data).hexdigest()[:16]}"'
    headers = {
        "cache-control": f"max-age={AGE_S}",
        "cross-origin-resource-policy": "cross-origin",
        "etag": etag,
        "x-content-type-options": "nosniff",
    }
    is_known = request.headers.get("if-none-match") == etag
    return Response(
        b"" if is_known else data,
        status_code=304 if is_known else 200,
        media_type="text/javascript; charset=utf-8",
        headers=headers,
    )


def _origin(request: ApiRequest) -> str | None:
    """The page that a browser says it comes from; host_and_origin.py has checked it."""
    return request.headers.get("origin")


HANDLERS = [show_bot, say_to_bot, widget]
