"""`POST /api/chat` and `/api/generate`: Ollama's API over the same services."""

from __future__ import annotations

import datetime
import secrets
from typing import Any, Literal

import msgspec
from litestar import post
from litestar.response.base import ASGIResponse
from litestar.types import ASGIApp

from edgeagent.api.http.auth import check_need
from edgeagent.api.http.body import body_operation, read_body
from edgeagent.api.http.caller import ApiRequest, caller_of, origin_of
from edgeagent.api.http.dialects import ollama_error
from edgeagent.api.http.errors import status_of
from edgeagent.api.http.response_doc import response_doc
from edgeagent.api.http.stream import AnswerResponse
from edgeagent.api.ollama.chat_schemas import (
    OllamaChatAnswer,
    OllamaChatRequest,
    OllamaError,
    OllamaGenerateAnswer,
    OllamaGenerateRequest,
    OllamaRequest,
    plain_name,
)
from edgeagent.errors import EdgeAgentError
from edgeagent.routing.decision import Decision
from edgeagent.serving.answer import Answer
from edgeagent.serving.answer_extensions import answer_extension
from edgeagent.serving.chat import ChatInput, ChatService
from edgeagent.serving.logprobs import Speller
from edgeagent.serving.models import ModelAdmin
from edgeagent.settings import Settings
from edgeagent.types.answer import PromptFacts, TokenChunk
from edgeagent.types.prompt import Prompt

Json = dict[str, Any]
Kind = Literal["chat", "generate"]
_encode = msgspec.json.encode
LINES = b"application/x-ndjson"


class OllamaWriter:
    """Chunks as lines of JSON, or one object. One for each response.

    Ollama sends calls in one piece, so each call is kept until it is complete.
    """

    content_type = LINES
    ping: bytes | None = None  # its clients read every line as an answer

    def __init__(self, kind: Kind, model: str, *, shows_thinking: bool) -> None:
        self._kind = kind
        self._model = model
        self._shows_thinking = shows_thinking
        self._texts: list[str] = []
        self._thoughts: list[str] = []
        self._calls: list[Json] = []
        self._logprobs: list[Json] = []
        self._n_written = 0  # calls that were written as text
        self._speller = Speller()
        self._open: tuple[str, list[str]] | None = None  # name and arguments of the unfinished call

    def decided(self, decision: Decision) -> None:
        """Its answers have the name that the client sent."""

    # --- streamed

    def opening(self, facts: PromptFacts | None) -> bytes:
        return b""

    def events(self, chunks: list[TokenChunk]) -> bytes:
        lines = []
        for chunk in chunks:
            thought = chunk.reasoning if self._shows_thinking else ""
            text, calls = self._parts(chunk)
            logprobs = self._speller.shown(chunk.logprobs)
            if text or thought or calls or logprobs:
                said = self._said(text, thought, calls)
                lines.append(self._line(said, {"done": False} | _with(logprobs)))
        return b"".join(lines)

    def last_events(self, answer: Answer) -> bytes:
        return self._line(self._said("", "", []), ending(answer))

    def error_events(self, error: EdgeAgentError) -> bytes:
        return _encode(ollama_error(error, status_of(error))) + b"\n"

    # --- whole

    def collect(self, chunks: list[TokenChunk]) -> None:
        for chunk in chunks:
            text, calls = self._parts(chunk)
            self._texts.append(text)
            self._thoughts.append(chunk.reasoning if self._shows_thinking else "")
            self._calls += calls
            self._logprobs += self._speller.shown(chunk.logprobs)

    def whole(self, answer: Answer) -> bytes:
        said = self._said("".join(self._texts), "".join(self._thoughts), self._calls)
        return self._line(said, ending(answer) | _with(self._logprobs))

    # --- both

    def _parts(self, chunk: TokenChunk) -> tuple[str, list[Json]]:
        """The text and the complete calls of a chunk. A continued text has no field for calls: there they
        are written as text, one object per line."""
        calls = self._whole_calls(chunk)
        if self._kind == "chat" or not calls:
            return chunk.text, calls
        lines = [_encode(call["function"]).decode() for call in calls]
        is_first, self._n_written = self._n_written == 0, self._n_written + len(lines)
        return chunk.text + ("" if is_first else "\n") + "\n".join(lines), []

    def _whole_calls(self, chunk: TokenChunk) -> list[Json]:
        """The calls that a chunk completes. A call within which the answer ends is dropped."""
        done = []
        for piece in chunk.calls:
            if piece.name is not None:
                done += self._closed()
                self._open = (piece.name, [])
            if self._open is not None:
                self._open[1].append(piece.arguments)
        if chunk.finish is not None:
            done += self._closed()
        return done

    def _closed(self) -> list[Json]:
        if self._open is None:
            return []
        (name, pieces), self._open = self._open, None
        try:
            arguments = msgspec.json.decode("".join(pieces) or "{}")
        except msgspec.DecodeError:
            return []
        call_id = f"call_{secrets.token_hex(12)}"
        return [{"id": call_id, "function": {"name": name, "arguments": arguments}}]

    def _said(self, text: str, thought: str, calls: list[Json]) -> Json:
        thinking = {"thinking": thought} if thought else {}
        if self._kind == "generate":
            return {"response": text} | thinking
        message: Json = {"role": "assistant", "content": text} | thinking
        return {"message": message | ({"tool_calls": calls} if calls else {})}

    def _line(self, said: Json, end: Json) -> bytes:
        return _encode({"model": self._model, "created_at": now()} | said | end) + b"\n"

    def empty(self, reason: str) -> bytes:
        """The answer to a request without a question."""
        return self._line(self._said("", "", []), {"done": True, "done_reason": reason})


def _with(logprobs: list[Json]) -> Json:
    return {"logprobs": logprobs} if logprobs else {}


def now() -> str:
    """The current time in Ollama's format."""
    return written(datetime.datetime.now(datetime.UTC))


def written(time: datetime.datetime) -> str:
    """RFC 3339, in UTC."""
    return time.isoformat().replace("+00:00", "Z")


def ending(answer: Answer) -> Json:
    """The end of an answer: reason, counts, and times in nanoseconds."""
    totals = answer.totals
    context = {"context": answer.tokens} if answer.tokens else {}
    (took,) = answer.usages.values()
    return (
        {
            "done": True,
            "done_reason": "length" if answer.finishes[0] == "length" else "stop",
            "total_duration": _ns(took.total_ms),
            "load_duration": 0,
            "prompt_eval_count": totals.n_prompt,
            "prompt_eval_duration": _ns(took.ttft_ms - took.queue_ms),
            "eval_count": totals.n_generated,
            "eval_duration": _ns(took.total_ms - took.ttft_ms),
        }
        | context
        | answer_extension(answer)
    )


def _ns(ms: float) -> int:
    return max(0, round(ms * 1e6))


_ERRORS = {
    400: response_doc(OllamaError, description="The request is not valid"),
    404: response_doc(OllamaError, description="Unknown model"),
    429: response_doc(
        OllamaError, description="The queue is full, or a limit of the key is reached"
    ),
    503: response_doc(OllamaError, description="The model cannot answer now"),
    502: response_doc(OllamaError, description="The upstream of the model has failed"),
    504: response_doc(OllamaError, description="The answer has not begun in time"),
}


@post(
    "/api/chat",
    operation_class=body_operation(OllamaChatRequest),
    operation_id="ollama_chat",
    summary="Answer a conversation, in Ollama's format",
    description="Lines of JSON, unless `stream` is false.",
    tags=["ollama"],
    status_code=200,
    responses=_ERRORS | {200: response_doc(OllamaChatAnswer, description="The answer")},
)
async def chat(
    request: ApiRequest, chats: ChatService, models: ModelAdmin, settings: Settings
) -> ASGIApp:
    body = await read_body(request, OllamaChatRequest)
    decision = chats.chooser.for_text(plain_name(body.model), origin_of(request))
    writer = OllamaWriter("chat", body.model, shows_thinking=body.shows_thinking)
    if not body.messages:
        return await _load(request, models, body, decision.model_id, writer)
    return await _answer(request, chats, settings, body, body.prompt(), writer)


@post(
    "/api/generate",
    operation_class=body_operation(OllamaGenerateRequest),
    operation_id="ollama_generate",
    summary="Answer or continue a text, in Ollama's format",
    description="Lines of JSON, unless `stream` is false.",
    tags=["ollama"],
    status_code=200,
    responses=_ERRORS | {200: response_doc(OllamaGenerateAnswer, description="The answer")},
)
async def generate(
    request: ApiRequest, chats: ChatService, models: ModelAdmin, settings: Settings
) -> ASGIApp:
    body = await read_body(request, OllamaGenerateRequest)
    decision = chats.chooser.for_text(plain_name(body.model), origin_of(request))
    writer = OllamaWriter("generate", body.model, shows_thinking=body.shows_thinking)
    if not body.prompt:
        return await _load(request, models, body, decision.model_id, writer)
    return await _answer(request, chats, settings, body, body.question_prompt(), writer)


async def _answer(
    request: ApiRequest, chats: ChatService, settings: Settings, body: OllamaRequest,
    prompt: Prompt, writer: OllamaWriter,
) -> AnswerResponse:  # fmt: skip
    caller, options = caller_of(request), body.chosen
    is_text = isinstance(body, OllamaGenerateRequest)
    chat = ChatInput(
        model=plain_name(body.model),
        prompts=[prompt],
        sampling=options.sampling,
        tools=lambda has_own: body.tool_use(caller),
        max_tokens=options.max_tokens,
        clamps=settings.api.clamps(by_default=True) or options.is_unbounded,
        stop=options.stops(),
        form=body.form(),
        logprobs=body.n_logprobs,
        tells_tokens=isinstance(body, OllamaGenerateRequest) and body.tells_context,
        # Ollama's answer to /api/generate has no field for a call.
        metadata={"calls": "false"} if is_text else {},
        has_tools=bool(getattr(body, "tools", None)),
        shows_trace=bool(body.route_trace),
    )
    return AnswerResponse(
        await chats.answer(origin_of(request), chat),
        writer,
        is_stream=body.stream is not False,
        ping_interval_s=settings.http.ping_interval_s,
        write_timeout_s=settings.http.write_timeout_s,
    )


async def _load(
    request: ApiRequest, models: ModelAdmin, body: OllamaRequest, model_id: str,
    writer: OllamaWriter,
) -> ASGIApp:  # fmt: skip
    """Load a model, or unload it: the meaning of a request without a question in Ollama's API.

    Raises: InsufficientScope for unloading without the scope `models`.
    """
    if body.is_unload:
        check_need("models", caller_of(request), "")
        await models.unload(model_id)
    else:
        await models.load(model_id)
    kind = "application/json" if body.stream is False else LINES.decode()
    line = writer.empty("unload" if body.is_unload else "load")
    return ASGIResponse(body=line, media_type=kind)


HANDLERS = [chat, generate]
