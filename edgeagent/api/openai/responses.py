"""`POST /v1/responses`: answer a turn, streamed, whole or in the background, and keep it."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import msgspec
from litestar import Request, post
from litestar.openapi.datastructures import ResponseSpec
from litestar.types import ASGIApp

from edgeagent.api.http.background_stream import BackgroundStreamResponse, JsonResponse
from edgeagent.api.http.body import body_operation, read_body
from edgeagent.api.http.caller import caller_of, origin_of
from edgeagent.api.http.errors import translate
from edgeagent.api.http.limits import Admission
from edgeagent.api.http.one_shot import OneShotResponse
from edgeagent.api.http.stream import AnswerResponse
from edgeagent.api.http.usage import tokens_of
from edgeagent.api.openai.schemas.common import ErrorBody
from edgeagent.api.openai.schemas.items import kept
from edgeagent.api.openai.schemas.responses import (
    ResponseAnswer,
    ResponseRequest,
    TokenCount,
    TokenCountRequest,
)
from edgeagent.api.openai.turn import Turn, prepare, question
from edgeagent.engine.client import EngineClient
from edgeagent.errors import EdgeAgentError, Interrupted
from edgeagent.serving.answer import Agent, Answer
from edgeagent.serving.archive import Archive
from edgeagent.serving.background import BackgroundResponse, BackgroundResponses
from edgeagent.serving.conversations import WHY_INTERRUPTED, Conversations
from edgeagent.serving.one_shot import OneShotService
from edgeagent.serving.prefix_store import PrefixStore
from edgeagent.settings import Settings
from edgeagent.store.rows import subject_of
from edgeagent.types.generation import GenerateSpec
from edgeagent.types.questions import CountSpec

logger = logging.getLogger(__name__)

_encode = msgspec.json.encode

PARAMS = {
    "messages": "input",
    "max_tokens": "max_output_tokens",
    "response_format": "text.format",
}

_REFUSED = {
    400: ResponseSpec(
        ErrorBody, description="The request is not valid, or its history is not whole"
    ),
    404: ResponseSpec(ErrorBody, description="Unknown model, conversation or item"),
    409: ResponseSpec(
        ErrorBody, description="The conversation is being answered in, or nothing is kept"
    ),
    429: ResponseSpec(ErrorBody, description="The queue is full, or a bound of the key is reached"),
    503: ResponseSpec(ErrorBody, description="The model cannot answer now"),
}


@post(
    "/v1/responses",
    operation_class=body_operation(ResponseRequest),
    operation_id="respond",
    summary="Answer a turn, and keep it",
    description=(
        "With `stream`, `response.*` events. What stood before comes from `previous_response_id` or "
        "`conversation`. With `background` the answer goes on without its client: GET it, or cancel it."
    ),
    tags=["responses"],
    status_code=200,
    responses={200: ResponseSpec(ResponseAnswer, description="The answer")} | _REFUSED,
)
async def respond(
    request: Request[Any, Any, Any],
    agent: Agent,
    archive: Archive,
    conversations: Conversations,
    prefix_store: PrefixStore,
    background: BackgroundResponses,
    settings: Settings,
) -> ASGIApp:
    body = await read_body(request, ResponseRequest)
    turn = await prepare(
        body,
        origin_of(request),
        caller_of(request),
        agent,
        archive,
        conversations,
        prefix_store,
        settings,
    )

    async def recall(client: EngineClient) -> None:
        if turn.history is not None:
            await prefix_store.recall(client, turn.position)

    answer = agent.ask(turn.origin, turn.decision, turn.spec, recall, notes=turn.notes)
    if body.background:
        admission = request.scope["state"]["admission"].extended()
        try:
            run = await begin(turn, answer, conversations, prefix_store, background, admission)
        except BaseException:
            admission.release()
            turn.release()
            await answer.release()
            raise
        if body.stream:
            return BackgroundStreamResponse(
                run, 0, settings.http.ping_interval_s, settings.http.write_timeout_s
            )
        return JsonResponse(run.show())

    async def keep(answer: Answer) -> None:
        turn.writer.settle(answer)
        await _keep(turn, conversations)
        remember(turn, answer, prefix_store)

    return AnswerResponse(
        answer,
        turn.writer,
        keep=keep if turn.is_stored or turn.conversation_id is not None else None,
        ended=lambda _: turn.release(),
        params=PARAMS,
        is_stream=bool(body.stream),
        ping_interval_s=settings.http.ping_interval_s,
        write_timeout_s=settings.http.write_timeout_s,
    )


@post(
    "/v1/responses/input_tokens",
    operation_class=body_operation(TokenCountRequest),
    operation_id="count_input_tokens",
    summary="Count the tokens of what would be asked",
    description="With the history, and all that the model's template puts around it, tools included.",
    tags=["responses"],
    status_code=200,
    responses={200: ResponseSpec(TokenCount, description="The count")} | _REFUSED,
)
async def count_input_tokens(
    request: Request[Any, Any, Any],
    agent: Agent,
    one_shots: OneShotService,
    conversations: Conversations,
) -> ASGIApp:
    body = await read_body(request, TokenCountRequest)
    origin = origin_of(request)
    decision = agent.route(body.model)
    _, _, prompt = await question(body, origin.owner, conversations)
    spec = CountSpec(
        request=GenerateSpec(prompts=[prompt], tools=body.tool_use(caller_of(request)))
    )
    return OneShotResponse(
        one_shots.ask(origin, decision, spec),
        lambda n_tokens: _encode({"object": "response.input_tokens", "input_tokens": n_tokens}),
    )


async def _keep(turn: Turn, conversations: Conversations) -> None:
    """Store a whole turn; of one that is not stored, what belongs to its conversation."""
    if turn.is_stored:
        await conversations.keep(turn.stored(), [turn.about])
        return
    assert turn.conversation_id is not None
    items = [
        *(kept(item, is_input=True) for item in turn.inputs),
        *(kept(item, is_input=False) for item in turn.writer.response["output"]),
    ]
    await conversations.add(
        turn.origin.owner, turn.conversation_id, items, [turn.about, subject_of(turn.body.metadata)]
    )


def remember(turn: Turn, answer: Answer, prefix_store: PrefixStore) -> None:
    """Have kept what was computed of a turn that is on disk."""
    prefix_store.observe(turn.decision.model_id, answer.usages[0])
    if turn.is_stored and answer.engine_request is not None:
        prefix_store.remember(*answer.engine_request, turn.position)


async def begin(
    turn: Turn,
    answer: Answer,
    conversations: Conversations,
    prefix_store: PrefixStore,
    background: BackgroundResponses,
    admission: Admission,
) -> BackgroundResponse:
    """Store an answer that is open, and go on with it in a task of its own."""
    run = BackgroundResponse(turn.id, turn.origin.owner, turn.writer.now, turn.conversation_id)
    await conversations.begin(turn.stored(with_outputs=False), [turn.about])
    run.publish(turn.writer.begin())

    async def work() -> None:
        try:
            await _answer(turn, answer, conversations, run)
            if turn.writer.response["status"] in ("completed", "incomplete"):
                remember(turn, answer, prefix_store)
        finally:
            turn.release()
            admission.charge(tokens_of(answer))
            admission.release()

    background.start(run, work)
    return run


async def _answer(
    turn: Turn, answer: Answer, conversations: Conversations, run: BackgroundResponse
) -> None:
    """A background answer to its end, whichever that is."""
    writer = turn.writer
    try:
        try:
            await answer.begin()
            while chunks := await answer.take():
                run.publish(writer.listed(chunks))
        finally:
            await answer.release()
        writer.settle(answer)
        await _finish(turn, conversations)
        run.publish(writer.finish(answer))
    except asyncio.CancelledError:
        stopped = Interrupted(WHY_INTERRUPTED)
        events = writer.fail(stopped) if run.is_stopping else writer.cancel()
        await _end_badly(turn, conversations, run, events)
    except Exception as exc:
        error = translate(exc)
        error.param = PARAMS.get(error.param or "", error.param)
        await _end_badly(turn, conversations, run, writer.fail(error))


async def _end_badly(
    turn: Turn, conversations: Conversations, run: BackgroundResponse, events: list[bytes]
) -> None:
    """Keep how it ended, if that is possible; if not, the next start finds that it did not."""
    try:
        await _finish(turn, conversations)
    except EdgeAgentError as exc:
        logger.warning("response_not_kept id=%s code=%s", turn.id, exc.code)
    run.publish(events)


async def _finish(turn: Turn, conversations: Conversations) -> None:
    await conversations.finish(turn.stored(with_inputs=False))


HANDLERS = [respond, count_input_tokens]
