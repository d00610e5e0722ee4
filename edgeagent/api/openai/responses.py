"""`POST /v1/responses`: answer a turn, streamed, whole or in the background, and store it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import msgspec
from litestar import post
from litestar.types import ASGIApp

from edgeagent.api.http.background_stream import BackgroundStreamResponse
from edgeagent.api.http.body import body_operation, read_body
from edgeagent.api.http.caller import ApiRequest, bounded_priority, caller_of, origin_of
from edgeagent.api.http.one_shot_response import JsonResponse, OneShotResponse
from edgeagent.api.http.request_context import context_of
from edgeagent.api.http.response_doc import response_doc
from edgeagent.api.http.stream import AnswerResponse
from edgeagent.api.openai.response_writer import ResponseWriter
from edgeagent.api.openai.schemas.items import HostedItem, InputItem, item_bodies
from edgeagent.api.openai.schemas.responses import (
    ResponseAnswer,
    ResponseInput,
    ResponseRequest,
    TokenCount,
    TokenCountRequest,
)
from edgeagent.api.openai.schemas.shared_request_fields import ErrorBody
from edgeagent.serving.chat import ChatInput
from edgeagent.serving.one_shot_request import OneShotService
from edgeagent.serving.stored_turn import PARAMS, DialogueInput, TurnInput, TurnService
from edgeagent.settings import Settings
from edgeagent.types.caller import Caller

_encode = msgspec.json.encode

_REFUSED = {
    400: response_doc(
        ErrorBody, description="The request is not valid, or its history is incomplete"
    ),
    404: response_doc(ErrorBody, description="Unknown model, conversation or item"),
    409: response_doc(
        ErrorBody, description="The conversation is in use, or this daemon stores nothing"
    ),
    429: response_doc(ErrorBody, description="The queue is full, or a limit of the key is reached"),
    503: response_doc(ErrorBody, description="The model cannot answer now"),
    502: response_doc(ErrorBody, description="The upstream of the model has failed"),
    504: response_doc(ErrorBody, description="The answer has not begun in time"),
}


@post(
    "/v1/responses",
    operation_class=body_operation(ResponseRequest),
    operation_id="respond",
    summary="Answer a turn, and store it",
    description=(
        "With `stream`, `response.*` events. The history comes from `previous_response_id` or "
        "`conversation`. With `background` the answer continues without its client: GET it, or cancel it."
    ),
    tags=["responses"],
    status_code=200,
    responses={200: response_doc(ResponseAnswer, description="The answer")} | _REFUSED,
)
async def respond(request: ApiRequest, turns: TurnService, settings: Settings) -> ASGIApp:
    body = await read_body(request, ResponseRequest)
    origin = origin_of(request)
    if body.background:  # nobody waits for it
        origin = replace(origin, deadline_s=None)
    turn = await turns.begin(origin, turn_input(body, caller_of(request), settings))
    if body.background:
        admission = context_of(request.scope).known_admission.extended()

        def at_end() -> None:
            admission.charge(turn.answer.n_tokens)
            admission.release()

        running = await turns.start_in_background(turn, at_end)
        if body.stream:
            return BackgroundStreamResponse(
                running, 0, settings.http.ping_interval_s, settings.http.write_timeout_s
            )
        return JsonResponse(running.show())
    return AnswerResponse(
        turn.answer,
        ResponseWriter(turn.builder, is_stream=bool(body.stream)),
        keep=(lambda: turns.keep(turn)) if turn.is_kept else None,
        ended=turn.release,
        params=PARAMS,
        is_stream=bool(body.stream),
        ping_interval_s=settings.http.ping_interval_s,
        write_timeout_s=settings.http.write_timeout_s,
    )


@post(
    "/v1/responses/input_tokens",
    operation_class=body_operation(TokenCountRequest),
    operation_id="count_input_tokens",
    summary="Count the tokens of a turn",
    description="Including the history and everything that the model's template adds, such as tools.",
    tags=["responses"],
    status_code=200,
    responses={200: response_doc(TokenCount, description="The count")} | _REFUSED,
)
async def count_input_tokens(
    request: ApiRequest, turns: TurnService, one_shots: OneShotService
) -> ASGIApp:
    body = await read_body(request, TokenCountRequest)
    origin = origin_of(request)
    decision = one_shots.chooser.for_text(body.model, origin)
    dialogue = await turns.dialogue(origin.owner, dialogue_input(body))
    tools = body.tool_use(caller_of(request))
    return OneShotResponse(
        one_shots.count(origin, decision, dialogue.prompt, tools),
        lambda n_tokens: _encode({"object": "response.input_tokens", "input_tokens": n_tokens}),
    )


def turn_input(body: ResponseRequest, caller: Caller, settings: Settings) -> TurnInput:
    """The input of the service, made of the body. Raises: InvalidParameter."""
    offer = body.tool_offer()
    return TurnInput(
        chat=ChatInput(
            model=body.model,
            prompts=[],
            sampling=body.sampling,
            tools=lambda has_own: body.tool_use(caller, has_own=has_own),
            max_tokens=body.max_output_tokens,
            clamps=settings.api.clamps(by_default=False),
            stop=body.stops(),
            ignore_eos=body.ignore_eos,
            priority=bounded_priority(caller, body.priority),
            form=body.form(),
            logprobs=body.n_logprobs,
            metadata=body.metadata or {},
            has_tools=bool(body.tools),
            shows_trace=bool(body.route_trace),
            notes=[*offer.notes, *notes_on(body.items)],
            lora=body.lora,
        ),
        dialogue=dialogue_input(body),
        shown=shown_fields(body),
        is_stored=body.store,
        is_background=bool(body.background),
        wants_logprobs=body.n_logprobs is not None,
        shows_results=body.shows_results,
        offer=offer,
    )


def dialogue_input(body: ResponseInput) -> DialogueInput:
    """The history that the body continues, and its new items."""
    return DialogueInput(
        items=item_bodies(body.items),
        instructions=body.instructions,
        previous_id=body.previous_response_id,
        conversation_id=body.conversation.id if body.conversation is not None else None,
        variables=body.variables(),
        may_drop=body.truncation == "auto",
    )


def notes_on(items: Sequence[InputItem]) -> list[str]:
    """Notes about items that were left out."""
    kinds = {item.type[:60] for item in items if isinstance(item, HostedItem)}
    return [
        f"input: items of type `{kind}` cannot be read by a model here and were left out."
        for kind in sorted(kinds)
    ]


def shown_fields(body: ResponseRequest) -> dict[str, Any]:
    """The fields of the response object that repeat the request."""
    format_ = body.text.format if body.text is not None else None
    choice = body.tool_choice or "auto"
    return {
        "instructions": body.instructions,
        "max_output_tokens": body.max_output_tokens,
        "max_tool_calls": body.max_tool_calls,
        "parallel_tool_calls": body.parallel_tool_calls is not False,
        "previous_response_id": body.previous_response_id,
        "conversation": body.conversation.model_dump() if body.conversation else None,
        "prompt_cache_key": body.prompt_cache_key,
        "reasoning": {
            "effort": body.reasoning.effort if body.reasoning else None,
            "summary": body.reasoning.summary if body.reasoning else None,
        },
        "safety_identifier": body.safety_identifier,
        "text": {
            "format": format_.shown() if format_ is not None else {"type": "text"},
            "verbosity": (body.text.verbosity if body.text else None) or "medium",
        },
        "tool_choice": choice if isinstance(choice, str) else choice.model_dump(exclude_none=True),
        "tools": [shown for tool in body.tools or [] if (shown := tool.shown()) is not None],
        "top_logprobs": body.top_logprobs or 0,
        "truncation": body.truncation or "disabled",
        "user": body.user,
    }


HANDLERS = [respond, count_input_tokens]
