"""`POST /v1/messages` and `/v1/messages/count_tokens`: Anthropic's API onto the same answers."""

from __future__ import annotations

import logging
import secrets
from dataclasses import dataclass, field
from typing import Any

import msgspec
from litestar import Request, post
from litestar.openapi.datastructures import ResponseSpec
from litestar.types import ASGIApp

from edgeagent.api.anthropic.schemas import (
    AnthropicError,
    CountAnswer,
    CountRequest,
    MessageAnswer,
    MessagesRequest,
)
from edgeagent.api.http.body import body_operation, read_body
from edgeagent.api.http.caller import caller_of, origin_of
from edgeagent.api.http.dialects import anthropic_error
from edgeagent.api.http.errors import status_of
from edgeagent.api.http.one_shot import OneShotResponse
from edgeagent.api.http.stream import AnswerResponse
from edgeagent.api.http.usage import own_of, usage_of
from edgeagent.errors import EdgeAgentError
from edgeagent.serving.answer import Agent, Answer, Decision
from edgeagent.serving.cascade import settle
from edgeagent.serving.one_shot import OneShotService
from edgeagent.settings import Settings
from edgeagent.types.answer import FinishReason, PromptFacts, TokenChunk
from edgeagent.types.generation import GenerateSpec
from edgeagent.types.questions import CountSpec

Json = dict[str, Any]
logger = logging.getLogger(__name__)
_encode = msgspec.json.encode
# What was cancelled from outside simply stopped.
_STOP_REASONS = {"length": "max_tokens", "tool_calls": "tool_use"}


@dataclass
class Block:
    """One block of an answer as far as it has come. `key` tells it from the others."""

    key: str | int
    head: Json
    pieces: list[str] = field(default_factory=list)

    @property
    def whole(self) -> Json:
        text = "".join(self.pieces)
        kind = self.head["type"]
        return self.head | {_FIELDS[kind]: _arguments(text) if kind == "tool_use" else text}


# The field of a block that its deltas add to, and what they are called.
_FIELDS = {"thinking": "thinking", "text": "text", "tool_use": "input"}
_DELTAS = {
    "thinking": ("thinking_delta", "thinking"),
    "text": ("text_delta", "text"),
    "tool_use": ("input_json_delta", "partial_json"),
}


def _arguments(text: str) -> Any:
    """The arguments of a call; none where the answer ended within them."""
    try:
        return msgspec.json.decode(text or "{}")
    except msgspec.DecodeError:
        return {}


class MessageWriter:
    """Chunks as the blocks of one message, streamed as events or whole. One for each response."""

    content_type = b"text/event-stream; charset=utf-8"
    ping: bytes | None = b'event: ping\ndata: {"type":"ping"}\n\n'

    def __init__(self, model: str, *, shows_thinking: bool) -> None:
        self._id = f"msg_{secrets.token_hex(12)}"
        self._model = model
        self._shows_thinking = shows_thinking
        self._blocks: list[Block] = []
        self._stop: str | None = None

    # --- streamed

    def opening(self, facts: PromptFacts | None) -> bytes:
        # Unknown only where a request has waited so long that a ping opens its stream.
        n_prompt, n_cached = (facts.n_prompt, facts.n_cached) if facts is not None else (0, 0)
        usage = _usage(n_prompt - n_cached, n_cached, 0)
        return _event("message_start", message=self._message([], None, usage))

    def events(self, chunks: list[TokenChunk]) -> bytes:
        return b"".join(event for chunk in chunks for event in self._take(chunk))

    def last_events(self, answer: Answer) -> bytes:
        delta = self._ending(answer.finishes[0])
        ending = _event("message_delta", delta=delta, usage=_usage_of(answer), **own_of(answer))
        return self._closing() + ending + _event("message_stop")

    def error_events(self, error: EdgeAgentError) -> bytes:
        body = anthropic_error(error, status_of(error))
        return b"event: error\ndata: " + _encode(body) + b"\n\n"

    # --- whole

    def collect(self, chunks: list[TokenChunk]) -> None:
        for chunk in chunks:
            self._take(chunk)

    def whole(self, answer: Answer) -> bytes:
        blocks = [block.whole for block in self._blocks]
        message = self._message(blocks, answer.finishes[0], _usage_of(answer))
        return _encode(message | own_of(answer))

    # --- both

    def _take(self, chunk: TokenChunk) -> list[bytes]:
        """Adds a chunk to the blocks. Returns the events that say so."""
        out = []
        if chunk.reasoning and self._shows_thinking:
            thought: Json = {"type": "thinking", "thinking": "", "signature": ""}
            out += self._add("thinking", thought, chunk.reasoning)
        if chunk.text:
            out += self._add("text", {"type": "text", "text": ""}, chunk.text)
        for piece in chunk.calls:
            head: Json = {
                "type": "tool_use",
                "id": f"toolu_{secrets.token_hex(12)}",
                "name": piece.name,
                "input": {},
            }
            out += self._add(piece.call, head, piece.arguments)
        if chunk.stop is not None:
            self._stop = chunk.stop
        return out

    def _add(self, key: str | int, head: Json, piece: str) -> list[bytes]:
        out = []
        if not self._blocks or self._blocks[-1].key != key:
            out.append(self._closing())
            out.append(_event("content_block_start", index=len(self._blocks), content_block=head))
            self._blocks.append(Block(key, head))
        block = self._blocks[-1]
        if piece:
            block.pieces.append(piece)
            kind, name = _DELTAS[block.head["type"]]
            delta = {"type": kind, name: piece}
            out.append(_event("content_block_delta", index=len(self._blocks) - 1, delta=delta))
        return out

    def _closing(self) -> bytes:
        """The end of the last block, where there is one."""
        if not self._blocks:
            return b""
        return _event("content_block_stop", index=len(self._blocks) - 1)

    def _ending(self, finish: FinishReason | None) -> Json:
        if finish is None:
            return {"stop_reason": None, "stop_sequence": None}
        is_stopped = finish == "stop" and self._stop is not None
        reason = "stop_sequence" if is_stopped else _STOP_REASONS.get(finish, "end_turn")
        return {"stop_reason": reason, "stop_sequence": self._stop if is_stopped else None}

    def _message(self, blocks: list[Json], finish: FinishReason | None, usage: Json) -> Json:
        return {
            "id": self._id,
            "type": "message",
            "role": "assistant",
            "model": self._model,
            "content": blocks,
            **self._ending(finish),
            "usage": usage,
        }


def _event(kind: str, **fields: Any) -> bytes:
    return f"event: {kind}\ndata: ".encode() + _encode({"type": kind, **fields}) + b"\n\n"


def _usage_of(answer: Answer) -> Json:
    usage = usage_of(answer)
    n_cached = usage["prompt_tokens_details"]["cached_tokens"]
    return _usage(usage["prompt_tokens"] - n_cached, n_cached, usage["completion_tokens"])


def _usage(n_input: int, n_cached: int, n_output: int) -> Json:
    """Anthropic's sum of what was read: new, put into the cache (not told apart here), found in it."""
    return {
        "input_tokens": n_input,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": n_cached,
        "output_tokens": n_output,
    }


def log_betas(request: Request[Any, Any, Any]) -> None:
    """What of Anthropic's trials a client wants: none of it is here, and nothing depends on it."""
    if logger.isEnabledFor(logging.DEBUG):
        betas = ",".join(request.headers.getall("anthropic-beta", []))
        logger.debug("anthropic_beta values=%s", ascii(betas[:400]))


_ERRORS = {
    400: ResponseSpec(AnthropicError, description="The request is not valid"),
    404: ResponseSpec(AnthropicError, description="Unknown model"),
    429: ResponseSpec(
        AnthropicError, description="The queue is full, or a bound of the key is reached"
    ),
    503: ResponseSpec(AnthropicError, description="The model cannot answer now"),
}


@post(
    "/v1/messages",
    operation_class=body_operation(MessagesRequest),
    operation_id="messages",
    summary="Answer a conversation, in Anthropic's words",
    description=(
        "As Anthropic's Messages API has it; a key may come as `x-api-key`. With `stream`, its events from "
        "`message_start` to `message_stop`. A `max_tokens` beyond the context is brought down to it (setting "
        "`clamp_max_tokens`), and the header `x-edgeagent-clamped` says to what."
    ),
    tags=["anthropic"],
    status_code=200,
    responses=_ERRORS | {200: ResponseSpec(MessageAnswer, description="The answer")},
)
async def messages(request: Request[Any, Any, Any], agent: Agent, settings: Settings) -> ASGIApp:
    body = await read_body(request, MessagesRequest)
    log_betas(request)
    origin, caller = origin_of(request), caller_of(request)

    def make(decision: Decision) -> GenerateSpec:
        return GenerateSpec(
            prompts=[body.prompt()],
            sampling=body.sampling(agent.defaults(decision)),
            max_tokens=body.max_tokens,
            clamps=settings.api.clamps(by_default=True),
            stop=body.stop_sequences or [],
            scope=origin.key_id,
            form=body.form(),
            tools=body.tool_use(caller),
        )

    decision, spec = await settle(agent, origin, body.model, make)
    return AnswerResponse(
        agent.ask(origin, decision, spec, notes=body.notes()),
        MessageWriter(decision.model_id, shows_thinking=body.shows_thinking),
        is_stream=bool(body.stream),
        ping_interval_s=settings.http.ping_interval_s,
        write_timeout_s=settings.http.write_timeout_s,
    )


@post(
    "/v1/messages/count_tokens",
    operation_class=body_operation(CountRequest),
    operation_id="count_message_tokens",
    summary="Count the tokens of a conversation, in Anthropic's words",
    description="With all that the model's template puts around it, tools included.",
    tags=["anthropic"],
    status_code=200,
    responses=_ERRORS | {200: ResponseSpec(CountAnswer, description="The count")},
)
async def count_tokens(
    request: Request[Any, Any, Any], agent: Agent, one_shots: OneShotService
) -> ASGIApp:
    body = await read_body(request, CountRequest)
    tools = body.tool_use(caller_of(request))
    spec = CountSpec(request=GenerateSpec(prompts=[body.prompt()], tools=tools))
    return OneShotResponse(
        one_shots.ask(origin_of(request), agent.route(body.model), spec),
        lambda n_tokens: _encode({"input_tokens": n_tokens}),
    )


HANDLERS = [messages, count_tokens]
