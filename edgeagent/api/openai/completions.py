"""`POST /v1/completions`."""

from __future__ import annotations

import math
from typing import Any

import msgspec
from litestar import post
from litestar.types import ASGIApp

from edgeagent.api.http.body import body_operation, read_body
from edgeagent.api.http.caller import ApiRequest, bounded_priority, caller_of, origin_of
from edgeagent.api.http.response_doc import response_doc
from edgeagent.api.http.stream import AnswerResponse
from edgeagent.api.openai.choice_writer import AnswerWriter, totals
from edgeagent.api.openai.schemas.completions import CompletionAnswer, CompletionRequest
from edgeagent.api.openai.schemas.shared_request_fields import ErrorBody
from edgeagent.api.openai.usage import finish_reason
from edgeagent.serving.answer import Answer
from edgeagent.serving.chat import ChatInput, ChatService
from edgeagent.serving.logprobs import Speller, fitted
from edgeagent.settings import Settings
from edgeagent.types.answer import TokenChunk, TokenLogprob
from edgeagent.types.caller import Caller
from edgeagent.types.prompt import Prompt

_encode = msgspec.json.encode


class CompletionWriter(AnswerWriter):
    """Chunks as `text_completion` objects, streamed or whole. `n` answers to each prompt are sent; where
    the answer has its prompts as text, each is put before its answers."""

    def __init__(self, answer: Answer, *, n: int, wants_usage: bool, wants_logprobs: bool) -> None:
        model_id = answer.decision.name
        super().__init__("cmpl", "text_completion", model_id, wants_usage=wants_usage)
        self._answer = answer
        self._n = n
        self._wants_logprobs = wants_logprobs
        self._has_begun: set[int] = set()
        self._scored: dict[int, list[TokenLogprob]] = {}

    @property
    def _echoes(self) -> list[str]:
        return self._answer.prompt_texts

    def collect(self, chunks: list[TokenChunk]) -> None:
        super().collect(chunks)
        self._scored |= {chunk.index: chunk.scored for chunk in chunks if chunk.scored}

    def events(self, chunks: list[TokenChunk]) -> bytes:
        return b"".join(
            b"data: "
            + _encode(
                self.head | {"choices": [_choice(c.index, self._said(c), c.finish, self._shown(c))]}
            )
            + b"\n\n"
            for c in chunks
        )

    def _said(self, chunk: TokenChunk) -> str:
        if not self._echoes or chunk.index in self._has_begun:
            return chunk.text
        self._has_begun.add(chunk.index)
        return self._echoes[chunk.index // self._n] + chunk.text

    def _shown(self, chunk: TokenChunk) -> dict[str, Any] | None:
        tokens = self._fitted(chunk.scored, chunk.index // self._n) + chunk.logprobs
        return self.speller(chunk.index).legacy(tokens) if tokens else None

    def _fitted(self, scored: list[TokenLogprob], prompt: int) -> list[TokenLogprob]:
        return fitted(scored, self._echoes[prompt]) if scored and self._echoes else []

    def whole(self, answer: Answer) -> bytes:
        n_made = answer.spec.n
        choices: list[dict[str, Any]] = []
        for prompt in range(len(answer.spec.prompts)):
            made = list(range(prompt * n_made, (prompt + 1) * n_made))
            if n_made > self._n:
                made = sorted(made, key=self._likelihood, reverse=True)[: self._n]
            choices += [
                self._whole_choice(answer, index, prompt, len(choices) + i)
                for i, index in enumerate(made)
            ]
        return _encode(self.head | {"choices": choices} | totals(answer))

    def _whole_choice(self, answer: Answer, made: int, prompt: int, index: int) -> dict[str, Any]:
        text = (self._echoes[prompt] if self._echoes else "") + self.text(made)
        tokens = self._fitted(self._scored.get(made, []), prompt) + self.logprobs(made)
        logprobs = Speller().legacy(tokens) if self._wants_logprobs else None
        return _choice(index, text, answer.finishes[made], logprobs)

    def _likelihood(self, index: int) -> float:
        """The mean log-probability of an answer's tokens; minus infinity without tokens."""
        tokens = self.logprobs(index)
        return sum(t.logprob or 0.0 for t in tokens) / len(tokens) if tokens else -math.inf


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
        200: response_doc(CompletionAnswer, description="The continuation"),
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
async def complete(request: ApiRequest, chats: ChatService, settings: Settings) -> ASGIApp:
    body = await read_body(request, CompletionRequest)
    text = completion_input(body, caller_of(request), settings)
    answer = chats.complete(origin_of(request), text, echoes=bool(body.echo))
    return AnswerResponse(
        answer,
        CompletionWriter(
            answer,
            n=body.n or 1,
            wants_usage=body.wants_usage,
            wants_logprobs=body.logprobs is not None,
        ),
        params={"messages": "prompt"},
        is_stream=bool(body.stream),
        ping_interval_s=settings.http.ping_interval_s,
        write_timeout_s=settings.http.write_timeout_s,
    )


def completion_input(body: CompletionRequest, caller: Caller, settings: Settings) -> ChatInput:
    """The input of the service, made of the body."""
    parse_special = body.parse_special
    if parse_special is None:
        parse_special = settings.api.completions_parse_special
    return ChatInput(
        model=body.model,
        prompts=[
            Prompt(text=prompt, suffix=body.suffix or None, parse_special=parse_special)
            if isinstance(prompt, str)
            else Prompt(tokens=prompt)
            for prompt in body.prompts()
        ],
        sampling=body.sampling,
        # OpenAI's default for completions; a chat answer ends by itself, a continued text may not.
        max_tokens=body.max_tokens if body.max_tokens is not None else 16,
        clamps=settings.api.clamps(by_default=False),
        stop=body.stops(),
        n=body.n_made,
        ignore_eos=body.ignore_eos,
        shows_trace=bool(body.route_trace),
        priority=bounded_priority(caller, body.priority),
        logprobs=0 if body.n_made > (body.n or 1) and body.logprobs is None else body.logprobs,
        scores_prompt=body.scores_prompt,
        lora=body.lora,
    )
