"""`POST /v1/chat/completions`."""

from __future__ import annotations

from typing import Any

import msgspec
from litestar import Request, post
from litestar.openapi.datastructures import ResponseSpec
from litestar.types import ASGIApp

from edgeagent.agent import Agent, Answer
from edgeagent.api.body import body_operation, read_body
from edgeagent.api.caller import asked_by
from edgeagent.api.schemas.chat import ChatAnswer, ChatRequest
from edgeagent.api.schemas.common import ErrorBody
from edgeagent.api.stream import AnswerResponse
from edgeagent.api.usage import finish_reason
from edgeagent.api.writer import AnswerWriter, totals
from edgeagent.archive import Archive
from edgeagent.settings import Settings
from edgeagent.store.items import Item
from edgeagent.store.responses import StoredResponse
from edgeagent.types import GenerateSpec, Prompt, TokenChunk

_encode = msgspec.json.encode


class ChatWriter(AnswerWriter):
    """Chunks as `chat.completion` and `chat.completion.chunk` objects.

    The parts of a chunk that never change within a stream are encoded once.
    """

    def __init__(self, model: str, *, wants_usage: bool) -> None:
        super().__init__("chatcmpl", "chat.completion.chunk", model, wants_usage=wants_usage)
        opening = _encode(self.head)[:-1]
        null_usage = b',"usage":null' if wants_usage else b""
        self._before = b"data: " + opening + null_usage + b',"choices":[{"index":'
        self._has_role: set[int] = set()

    def events(self, chunks: list[TokenChunk]) -> bytes:
        out = []
        for chunk in chunks:
            if chunk.index not in self._has_role:
                self._has_role.add(chunk.index)
                out.append(self._event(chunk.index, b'{"role":"assistant","content":""}', b"null"))
            if chunk.text:
                out.append(
                    self._event(chunk.index, b'{"content":' + _encode(chunk.text) + b"}", b"null")
                )
            if chunk.finish is not None:
                out.append(self._event(chunk.index, b"{}", _encode(finish_reason(chunk.finish))))
        return b"".join(out)

    def _event(self, index: int, delta: bytes, finish: bytes) -> bytes:
        return (
            self._before + str(index).encode() + b',"delta":' + delta
            + b',"logprobs":null,"finish_reason":' + finish + b"}]}\n\n"
        )  # fmt: skip

    def whole(self, answer: Answer) -> bytes:
        return _encode(self.whole_object(answer))

    def whole_object(self, answer: Answer) -> dict[str, Any]:
        """The `chat.completion` of what was collected."""
        choices = [
            {
                "index": index,
                "message": {
                    "role": "assistant",
                    "content": self.text(index),
                    "refusal": None,
                },
                "logprobs": None,
                "finish_reason": finish_reason(answer.finishes[index]),
            }
            for index in range(answer.spec.n_answers)
        ]
        return self.head | {"object": "chat.completion", "choices": choices} | totals(answer)


@post(
    "/v1/chat/completions",
    operation_class=body_operation(ChatRequest),
    operation_id="chat",
    summary="Answer a conversation",
    description="With `stream`, `chat.completion.chunk` objects as server-sent events, then `[DONE]`.",
    tags=["chat"],
    status_code=200,
    responses={
        200: ResponseSpec(ChatAnswer, description="The answer"),
        400: ResponseSpec(ErrorBody, description="The request is not valid"),
        404: ResponseSpec(ErrorBody, description="Unknown model"),
        429: ResponseSpec(
            ErrorBody, description="The queue is full, or a bound of the key is reached"
        ),
        503: ResponseSpec(ErrorBody, description="The model cannot answer now"),
    },
)
async def chat(
    request: Request[Any, Any, Any], agent: Agent, archive: Archive, settings: Settings
) -> ASGIApp:
    body = await read_body(request, ChatRequest)
    if body.store:
        await archive.check()
    decision = agent.route(body.model)
    asked = asked_by(request)
    spec = GenerateSpec(
        prompts=[Prompt(messages=[message.for_template() for message in body.messages])],
        sampling=body.sampling(agent.defaults(decision)),
        max_tokens=body.answer_limit,
        stop=body.stops(),
        n=body.n or 1,
        scope=asked.key_id,
        ignore_eos=body.ignore_eos,
        form=body.form(allow_grammars=settings.allow_grammars),
    )
    writer = ChatWriter(decision.model_id, wants_usage=body.wants_usage)

    async def keep(answer: Answer) -> None:
        await archive.keep(stored_chat(asked.owner, body, writer.whole_object(answer)))

    return AnswerResponse(
        agent.ask(asked, decision, spec),
        writer,
        keep=keep if body.store else None,
        is_stream=bool(body.stream),
        ping_interval_s=settings.ping_interval_s,
        write_timeout_s=settings.write_timeout_s,
    )


def stored_chat(owner: str, body: ChatRequest, whole: dict[str, Any]) -> StoredResponse:
    """Question and answers as they are kept."""
    metadata = body.metadata or {}
    asked = [
        Item(
            kind="message",
            role=message.role,
            body=message.model_dump(exclude_none=True),
            plain=message.content or "",
            is_input=True,
        )
        for message in body.messages
    ]
    answered = [
        Item(
            kind="message",
            role="assistant",
            body=choice["message"],
            plain=choice["message"]["content"] or "",
        )
        for choice in whole["choices"]
    ]
    return StoredResponse(
        id=whole["id"],
        owner=owner,
        subject=metadata.get("subject"),
        model=whole["model"],
        status="completed",
        body=whole | {"metadata": metadata},
        items=[*asked, *answered],
    )
