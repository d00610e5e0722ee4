"""`POST /v1/completions`."""

from __future__ import annotations

from typing import Any

import msgspec
from litestar import Request, post
from litestar.openapi.datastructures import ResponseSpec
from litestar.types import ASGIApp

from edgeagent.agent import Agent, Answer
from edgeagent.api.body import body_operation, read_body
from edgeagent.api.caller import asked_by
from edgeagent.api.logprobs import Speller
from edgeagent.api.schemas.common import ErrorBody
from edgeagent.api.schemas.completions import CompletionAnswer, CompletionRequest
from edgeagent.api.stream import AnswerResponse
from edgeagent.api.usage import finish_reason
from edgeagent.api.writer import AnswerWriter, totals
from edgeagent.settings import Settings
from edgeagent.types import GenerateSpec, Prompt, TokenChunk

_encode = msgspec.json.encode


class CompletionWriter(AnswerWriter):
    """Chunks as `text_completion` objects, streamed or whole."""

    def __init__(self, model: str, *, wants_usage: bool) -> None:
        super().__init__("cmpl", "text_completion", model, wants_usage=wants_usage)

    def events(self, chunks: list[TokenChunk]) -> bytes:
        return b"".join(
            b"data: "
            + _encode(self.head | {"choices": [_choice(c.index, c.text, c.finish, self._shown(c))]})
            + b"\n\n"
            for c in chunks
        )

    def _shown(self, chunk: TokenChunk) -> dict[str, Any] | None:
        return self.speller(chunk.index).legacy(chunk.logprobs) if chunk.logprobs else None

    def whole(self, answer: Answer) -> bytes:
        wants = answer.spec.logprobs is not None
        choices = [
            _choice(
                index,
                self.text(index),
                answer.finishes[index],
                Speller().legacy(self.logprobs(index)) if wants else None,
            )
            for index in range(answer.spec.n_answers)
        ]
        return _encode(self.head | {"choices": choices} | totals(answer))


def _choice(
    index: int, text: str, finish: str | None, logprobs: dict[str, Any] | None
) -> dict[str, Any]:
    return {
        "index": index,
        "text": text,
        "logprobs": logprobs,
        "finish_reason": finish_reason(finish) if finish is not None else None,
    }


@post(
    "/v1/completions",
    operation_class=body_operation(CompletionRequest),
    operation_id="complete",
    summary="Continue a text",
    description="With `stream`, `text_completion` objects as server-sent events, then `[DONE]`.",
    tags=["completions"],
    status_code=200,
    responses={
        200: ResponseSpec(CompletionAnswer, description="The continuation"),
        400: ResponseSpec(ErrorBody, description="The request is not valid"),
        404: ResponseSpec(ErrorBody, description="Unknown model"),
        429: ResponseSpec(
            ErrorBody, description="The queue is full, or a bound of the key is reached"
        ),
        503: ResponseSpec(ErrorBody, description="The model cannot answer now"),
    },
)
async def complete(request: Request[Any, Any, Any], agent: Agent, settings: Settings) -> ASGIApp:
    body = await read_body(request, CompletionRequest)
    decision = agent.route(body.model)
    asked = asked_by(request)
    spec = GenerateSpec(
        prompts=[
            Prompt(text=prompt) if isinstance(prompt, str) else Prompt(tokens=prompt)
            for prompt in body.prompts()
        ],
        sampling=body.sampling(agent.defaults(decision)),
        # OpenAI's default for completions; a chat's answer ends by itself, a text need not.
        max_tokens=body.max_tokens or 16,
        stop=body.stops(),
        n=body.n or 1,
        scope=asked.key_id,
        ignore_eos=body.ignore_eos,
        logprobs=body.logprobs,
    )
    return AnswerResponse(
        agent.ask(asked, decision, spec),
        CompletionWriter(decision.model_id, wants_usage=body.wants_usage),
        is_stream=bool(body.stream),
        ping_interval_s=settings.ping_interval_s,
        write_timeout_s=settings.write_timeout_s,
    )
