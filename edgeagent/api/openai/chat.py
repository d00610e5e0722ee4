"""`POST /v1/chat/completions`."""

from __future__ import annotations

from typing import Any

import msgspec
from litestar import post
from litestar.types import ASGIApp

from edgeagent.api.http.body import body_operation, read_body
from edgeagent.api.http.caller import ApiRequest, bounded_priority, caller_of, origin_of
from edgeagent.api.http.one_shot_response import OneShotResponse
from edgeagent.api.http.response_doc import response_doc
from edgeagent.api.http.stream import AnswerResponse
from edgeagent.api.http.tool_calls import PartialCall, merged
from edgeagent.api.openai.choice_writer import AnswerWriter, totals
from edgeagent.api.openai.schemas.chat import ChatAnswer, ChatRequest, ChatTokenCount
from edgeagent.api.openai.schemas.shared_request_fields import ErrorBody
from edgeagent.api.openai.usage import finish_reason
from edgeagent.routing.decision import Decision
from edgeagent.serving.answer import Answer
from edgeagent.serving.answer_extensions import extension
from edgeagent.serving.chat import ChatInput, ChatService
from edgeagent.serving.logprobs import Speller
from edgeagent.serving.one_shot_request import OneShotService
from edgeagent.serving.request_log import AnswerLinks
from edgeagent.serving.stored_chats import StoredChats
from edgeagent.serving.tool_offer import CustomInput, ToolOffer
from edgeagent.settings import Settings
from edgeagent.types.answer import CallDelta, TokenChunk
from edgeagent.types.caller import Caller

_encode = msgspec.json.encode


class ChatWriter(AnswerWriter):
    """Chunks as `chat.completion` and `chat.completion.chunk` objects.

    The parts of a chunk that never change within a stream are encoded once.
    """

    def __init__(
        self, decision: Decision, *, wants_usage: bool, offer: ToolOffer | None = None
    ) -> None:
        super().__init__(
            "chatcmpl", "chat.completion.chunk", decision.name, wants_usage=wants_usage
        )
        self._decision = decision
        self._offer = offer or ToolOffer()
        self._inputs: dict[tuple[int, int], CustomInput] = {}  # of calls of custom tools
        self._before = self._opening()
        self._has_role: set[int] = set()

    def _opening(self) -> bytes:
        null_usage = b',"usage":null' if self._wants_usage else b""
        return b"data: " + _encode(self.head)[:-1] + null_usage + b',"choices":[{"index":'

    def decided(self, decision: Decision) -> None:
        super().decided(decision)
        self._decision = decision
        self._before = self._opening()

    def events(self, chunks: list[TokenChunk]) -> bytes:
        out = []
        for chunk in chunks:
            if chunk.index not in self._has_role:
                self._has_role.add(chunk.index)
                # An answer that begins without text may have none at all.
                content = b"null" if chunk.reasoning or chunk.calls else b'""'
                role = b'{"role":"assistant","content":' + content + b"}"
                out.append(self._event(chunk.index, role, b"null"))
            if chunk.reasoning:
                delta = b'{"reasoning_content":' + _encode(chunk.reasoning) + b"}"
                out.append(self._event(chunk.index, delta, b"null"))
            if chunk.text or chunk.logprobs:
                delta = b'{"content":' + _encode(chunk.text) + b"}"
                out.append(self._event(chunk.index, delta, b"null", self._shown(chunk)))
            for piece in merged(chunk.calls) if chunk.calls else ():
                out += [
                    self._event(chunk.index, b'{"tool_calls":[' + _encode(delta) + b"]}", b"null")
                    for delta in self._call_deltas(chunk.index, piece)
                ]
            if chunk.finish is not None:
                out += [
                    self._event(chunk.index, b'{"tool_calls":[' + _encode(delta) + b"]}", b"null")
                    for delta in self._last_deltas(chunk.index)
                ]
                out.append(self._last_event(chunk))
        return b"".join(out)

    def _call_deltas(self, index: int, piece: CallDelta) -> list[dict[str, Any]]:
        """The name first, then arguments alone, since the SDK concatenates what it receives."""
        deltas: list[dict[str, Any]] = []
        key = (index, piece.call)
        if piece.name is not None and piece.name in self._offer.customs:
            self._inputs[key] = CustomInput()
            head = {"index": piece.call, "id": self.calls.id_of(*key), "type": "custom"}
            deltas.append(head | {"custom": {"name": piece.name, "input": ""}})
        if (custom := self._inputs.get(key)) is not None:
            told = custom.feed(piece.arguments)
            return [*deltas, *([_custom_delta(piece.call, told)] if told else [])]
        if piece.name is not None:
            deltas.append({
                "index": piece.call,
                "id": self.calls.id_of(index, piece.call),
                "type": "function",
                "function": {"name": piece.name, "arguments": ""},
            })  # fmt: skip
        if piece.arguments:
            deltas.append({"index": piece.call, "function": {"arguments": piece.arguments}})
        return deltas

    def _last_deltas(self, index: int) -> list[dict[str, Any]]:
        """The rest of the texts of custom tools."""
        own = [(call, told) for (i, call), told in self._inputs.items() if i == index]
        return [_custom_delta(call, rest) for call, told in own if (rest := told.finish())]

    def _last_event(self, chunk: TokenChunk) -> bytes:
        """The finish reason, the confidence of an assistant model, and notes."""
        assert chunk.finish is not None
        event = self._event(chunk.index, b"{}", _encode(finish_reason(chunk.finish)))
        confidence = chunk.confidence or self._decision.confidence
        notes = self._offer.notes
        own = extension(self._decision, confidence, chunk.told, notes, chunk.notes)
        if not own:
            return event
        return event[: -len(b"}\n\n")] + b',"edgeagent":' + _encode(own) + b"}\n\n"

    def _event(self, index: int, delta: bytes, finish: bytes, logprobs: bytes = b"null") -> bytes:
        return (
            self._before + str(index).encode() + b',"delta":' + delta
            + b',"logprobs":' + logprobs + b',"finish_reason":' + finish + b"}]}\n\n"
        )  # fmt: skip

    def _shown(self, chunk: TokenChunk) -> bytes:
        if not chunk.logprobs:
            return b"null"
        shown = self.speller(chunk.index).shown(chunk.logprobs)
        return _encode({"content": shown, "refusal": None})

    def whole(self, answer: Answer) -> bytes:
        return _encode(self.whole_object(answer))

    def whole_object(self, answer: Answer) -> dict[str, Any]:
        """The `chat.completion` of the collected chunks."""
        choices = [
            {
                "index": index,
                "message": self._message(index),
                "logprobs": {"content": Speller().shown(self.logprobs(index)), "refusal": None}
                if answer.spec.logprobs is not None
                else None,
                "finish_reason": finish_reason(answer.finishes[index]),
            }
            for index in range(answer.spec.n_answers)
        ]
        return self.head | {"object": "chat.completion", "choices": choices} | totals(answer)

    def _message(self, index: int) -> dict[str, Any]:
        calls, reasoning, text = self.calls.of(index), self.reasoning(index), self.text(index)
        message: dict[str, Any] = {
            "role": "assistant",
            "content": text if text or not calls else None,
            "refusal": None,
        }
        if reasoning:
            message["reasoning_content"] = reasoning
        if calls:
            message["tool_calls"] = [self._whole_call(call) for call in calls]
        return message

    def _whole_call(self, call: PartialCall) -> dict[str, Any]:
        if call.name not in self._offer.customs:
            function = {"name": call.name, "arguments": call.arguments}
            return {"id": call.id, "type": "function", "function": function}
        custom = CustomInput()
        text = custom.feed(call.arguments) + custom.finish()
        return {"id": call.id, "type": "custom", "custom": {"name": call.name, "input": text}}


def _custom_delta(call: int, text: str) -> dict[str, Any]:
    return {"index": call, "custom": {"input": text}}


@post(
    "/v1/chat/completions",
    operation_class=body_operation(ChatRequest),
    operation_id="chat",
    summary="Answer a conversation",
    description="With `stream`, `chat.completion.chunk` objects as server-sent events, then `[DONE]`.",
    tags=["chat"],
    status_code=200,
    responses={
        200: response_doc(ChatAnswer, description="The answer"),
        400: response_doc(ErrorBody, description="The request is not valid"),
        404: response_doc(ErrorBody, description="Unknown model"),
        429: response_doc(
            ErrorBody, description="The queue is full, or a limit of the key is reached"
        ),
        503: response_doc(ErrorBody, description="The model cannot answer now"),
        502: response_doc(ErrorBody, description="The upstream of the model has failed"),
        504: response_doc(ErrorBody, description="The answer has not begun in time"),
    },
)
async def chat(
    request: ApiRequest, chats: ChatService, stored_chats: StoredChats, settings: Settings
) -> ASGIApp:
    body = await read_body(request, ChatRequest)
    if body.store:
        await stored_chats.check()
    origin = origin_of(request)
    answer = await chats.answer(origin, chat_input(body, caller_of(request), settings))
    writer = ChatWriter(answer.decision, wants_usage=body.wants_usage, offer=body.tool_offer())

    if body.store:
        answer.record.links = AnswerLinks(writer.head["id"])

    async def keep() -> None:
        messages = [message.model_dump(exclude_none=True) for message in body.messages]
        completion = writer.whole_object(answer)
        await stored_chats.keep(origin.owner, messages, completion, body.metadata or {})

    return AnswerResponse(
        answer,
        writer,
        keep=keep if body.store else None,
        is_stream=bool(body.stream),
        ping_interval_s=settings.http.ping_interval_s,
        write_timeout_s=settings.http.write_timeout_s,
    )


def chat_input(body: ChatRequest, caller: Caller, settings: Settings) -> ChatInput:
    """The input of the service, made of the body. Raises: InvalidParameter."""
    return ChatInput(
        model=body.model,
        prompts=[body.prompt()],
        sampling=body.sampling,
        tools=lambda has_own: body.tool_use(caller, has_own=has_own),
        max_tokens=body.answer_limit,
        clamps=settings.api.clamps(by_default=False),
        stop=body.stops(),
        n=body.n or 1,
        ignore_eos=body.ignore_eos,
        priority=bounded_priority(caller, body.priority),
        form=body.form(allow_grammars=settings.api.allow_grammars),
        logprobs=body.n_logprobs,
        metadata=body.metadata or {},
        has_tools=bool(body.tools),
        prediction=body.prediction.content if body.prediction is not None else "",
        lora=body.lora,
        shows_trace=bool(body.route_trace),
        notes=body.tool_offer().notes,
    )


@post(
    "/v1/chat/completions/input_tokens",
    operation_class=body_operation(ChatRequest),
    operation_id="count_chat_tokens",
    summary="Count the tokens of a chat (extension)",
    description="Including everything that the model's template adds, such as tools. Nothing is generated.",
    tags=["chat"],
    status_code=200,
    responses={
        200: response_doc(ChatTokenCount, description="The count"),
        400: response_doc(ErrorBody, description="The request is not valid"),
        404: response_doc(ErrorBody, description="Unknown model"),
        503: response_doc(ErrorBody, description="The model cannot answer now"),
    },
)
async def count_chat_tokens(request: ApiRequest, one_shots: OneShotService) -> ASGIApp:
    body = await read_body(request, ChatRequest)
    decision = one_shots.chooser.for_text(body.model, origin_of(request), [body.prompt()])
    tools = body.tool_use(caller_of(request))
    head = {"object": "chat.completion.input_tokens", "model": decision.name}
    return OneShotResponse(
        one_shots.count(origin_of(request), decision, body.prompt(), tools),
        lambda n_tokens: _encode(head | {"input_tokens": n_tokens}),
    )
