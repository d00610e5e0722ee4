"""`POST /v1/messages` and `/v1/messages/count_tokens`: Anthropic's API over the same services."""

from __future__ import annotations

import logging
import secrets
from dataclasses import dataclass, field
from typing import Any

import msgspec
from litestar import post
from litestar.types import ASGIApp

from edgeagent.api.anthropic.schemas import (
    AnthropicError,
    CountAnswer,
    CountRequest,
    MessageAnswer,
    MessagesRequest,
)
from edgeagent.api.http.body import body_operation, read_body
from edgeagent.api.http.caller import ApiRequest, caller_of, origin_of
from edgeagent.api.http.dialects import anthropic_error
from edgeagent.api.http.errors import status_of
from edgeagent.api.http.one_shot_response import OneShotResponse
from edgeagent.api.http.response_doc import response_doc
from edgeagent.api.http.response_sender import EVENT_STREAM
from edgeagent.api.http.stream import AnswerResponse
from edgeagent.errors import EdgeAgentError
from edgeagent.routing.decision import Decision
from edgeagent.serving.answer import Answer
from edgeagent.serving.answer_extensions import answer_extension
from edgeagent.serving.chat import ChatInput, ChatService
from edgeagent.serving.one_shot_request import OneShotService
from edgeagent.settings import Settings
from edgeagent.types.answer import FinishReason, PromptFacts, TokenChunk

Json = dict[str, Any]
logger = logging.getLogger(__name__)
_encode = msgspec.json.encode
# A cancelled answer has "end_turn".
_STOP_REASONS = {"length": "max_tokens", "tool_calls": "tool_use"}


@dataclass
class OutputBlock:
    """One block of an answer so far. `key` identifies it among the others."""

    key: str | int
    head: Json
    pieces: list[str] = field(default_factory=list)

    @property
    def whole(self) -> Json:
        text = "".join(self.pieces)
        kind = self.head["type"]
        return self.head | {_FIELDS[kind]: _arguments(text) if kind == "tool_use" else text}


# The field of each type of block that its deltas extend, and the names of the deltas.
_FIELDS = {"thinking": "thinking", "text": "text", "tool_use": "input"}
_DELTAS = {
    "thinking": ("thinking_delta", "thinking"),
    "text": ("text_delta", "text"),
    "tool_use": ("input_json_delta", "partial_json"),
}


def _arguments(text: str) -> Any:
    """The arguments of a call; empty where the answer ended within them."""
    try:
        return msgspec.json.decode(text or "{}")
    except msgspec.DecodeError:
        return {}


class MessageWriter:
    """Chunks as the blocks of one message, streamed as events or whole. One for each response."""

    content_type = EVENT_STREAM
    ping: bytes | None = b'event: ping\ndata: {"type":"ping"}\n\n'

    def __init__(self, model: str, *, shows_thinking: bool) -> None:
        self._id = f"msg_{secrets.token_hex(12)}"
        self._model = model
        self._shows_thinking = shows_thinking
        self._blocks: list[OutputBlock] = []
        self._stop: str | None = None

    def decided(self, decision: Decision) -> None:
        self._model = decision.name

    # --- streamed

    def opening(self, facts: PromptFacts | None) -> bytes:
        # Unknown only where a request waits so long that a ping opens its stream.
        n_prompt, n_cached = (facts.n_prompt, facts.n_cached) if facts is not None else (0, 0)
        usage = _usage(n_prompt - n_cached, n_cached, 0)
        return _event("message_start", message=self._message([], None, usage))

    def events(self, chunks: list[TokenChunk]) -> bytes:
        return b"".join(event for chunk in chunks for event in self._take(chunk))

    def last_events(self, answer: Answer) -> bytes:
        delta = self._ending(answer.finishes[0])
        ending = _event(
            "message_delta", delta=delta, usage=_usage_of(answer), **answer_extension(answer)
        )
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
        return _encode(message | answer_extension(answer))

    # --- both

    def _take(self, chunk: TokenChunk) -> list[bytes]:
        """Add a chunk to the blocks. Returns its events."""
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
            self._blocks.append(OutputBlock(key, head))
        block = self._blocks[-1]
        if piece:
            block.pieces.append(piece)
            kind, name = _DELTAS[block.head["type"]]
            delta = {"type": kind, name: piece}
            out.append(_event("content_block_delta", index=len(self._blocks) - 1, delta=delta))
        return out

    def _closing(self) -> bytes:
        """The end of the last block; empty without one."""
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
    totals = answer.totals
    return _usage(totals.n_prompt - totals.n_cached, totals.n_cached, totals.n_generated)


def _usage(n_input: int, n_cached: int, n_output: int) -> Json:
    """Anthropic's counts of prompt tokens: new ones, those written to the cache (not separated here), those
    read from it."""
    return {
        "input_tokens": n_input,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": n_cached,
        "output_tokens": n_output,
    }


def log_betas(request: ApiRequest) -> None:
    """Log the beta features that a client requests; none exists here, and they have no effect."""
    if logger.isEnabledFor(logging.DEBUG):
        betas = ",".join(request.headers.getall("anthropic-beta", []))
        logger.debug("anthropic_beta values=%s", ascii(betas[:400]))


_ERRORS = {
    400: response_doc(AnthropicError, description="The request is not valid"),
    404: response_doc(AnthropicError, description="Unknown model"),
    429: response_doc(
        AnthropicError, description="The queue is full, or a limit of the key is reached"
    ),
    503: response_doc(AnthropicError, description="The model cannot answer now"),
    502: response_doc(AnthropicError, description="The upstream of the model has failed"),
    504: response_doc(AnthropicError, description="The answer has not begun in time"),
}


@post(
    "/v1/messages",
    operation_class=body_operation(MessagesRequest),
    operation_id="messages",
    summary="Answer a conversation, in Anthropic's format",
    description=(
        "Anthropic's Messages API; the key may be sent as `x-api-key`. With `stream`, its events from "
        "`message_start` to `message_stop`. A `max_tokens` beyond the context is reduced to it (setting "
        "`clamp_max_tokens`), and the header `x-edgeagent-clamped` has the new value."
    ),
    tags=["anthropic"],
    status_code=200,
    responses=_ERRORS | {200: response_doc(MessageAnswer, description="The answer")},
)
async def messages(request: ApiRequest, chats: ChatService, settings: Settings) -> ASGIApp:
    body = await read_body(request, MessagesRequest)
    log_betas(request)
    caller = caller_of(request)
    chat = ChatInput(
        model=body.model,
        prompts=[body.prompt()],
        sampling=body.sampling,
        tools=lambda has_own: body.tool_use(caller),
        max_tokens=body.max_tokens,
        clamps=settings.api.clamps(by_default=True),
        stop=body.stop_sequences or [],
        form=body.form(),
        has_tools=bool(body.tools),
        shows_trace=bool(body.route_trace),
        notes=body.notes(),
    )
    answer = await chats.answer(origin_of(request), chat)
    return AnswerResponse(
        answer,
        MessageWriter(answer.decision.name, shows_thinking=body.shows_thinking),
        is_stream=bool(body.stream),
        ping_interval_s=settings.http.ping_interval_s,
        write_timeout_s=settings.http.write_timeout_s,
    )


@post(
    "/v1/messages/count_tokens",
    operation_class=body_operation(CountRequest),
    operation_id="count_message_tokens",
    summary="Count the tokens of a conversation, in Anthropic's format",
    description="Including everything that the model's template adds, such as tools.",
    tags=["anthropic"],
    status_code=200,
    responses=_ERRORS | {200: response_doc(CountAnswer, description="The count")},
)
async def count_tokens(request: ApiRequest, one_shots: OneShotService) -> ASGIApp:
    body = await read_body(request, CountRequest)
    tools = body.tool_use(caller_of(request))
    decision = one_shots.chooser.for_text(body.model, origin_of(request), [body.prompt()])
    return OneShotResponse(
        one_shots.count(origin_of(request), decision, body.prompt(), tools),
        lambda n_tokens: _encode({"input_tokens": n_tokens}),
    )


HANDLERS = [messages, count_tokens]
