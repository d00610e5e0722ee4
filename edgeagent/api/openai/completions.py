"""`POST /v1/completions`."""

from __future__ import annotations

import contextlib
import math
from typing import Any

import msgspec
from litestar import Request, post
from litestar.openapi.datastructures import ResponseSpec
from litestar.types import ASGIApp

from edgeagent.api.http.body import body_operation, read_body
from edgeagent.api.http.caller import bounded_priority, caller_of, origin_of
from edgeagent.api.http.stream import AnswerResponse
from edgeagent.api.http.usage import finish_reason
from edgeagent.api.openai.choice_writer import AnswerWriter, totals
from edgeagent.api.openai.logprobs import Speller, fitted
from edgeagent.api.openai.schemas.common import ErrorBody
from edgeagent.api.openai.schemas.completions import CompletionAnswer, CompletionRequest
from edgeagent.engine.client import EngineClient
from edgeagent.errors import InvalidParameter
from edgeagent.serving.answer import Agent, Answer
from edgeagent.settings import Settings
from edgeagent.types.answer import TokenChunk, TokenLogprob
from edgeagent.types.generation import GenerateSpec
from edgeagent.types.prompt import Prompt
from edgeagent.types.questions import DetokenizeSpec

_encode = msgspec.json.encode


class CompletionWriter(AnswerWriter):
    """Chunks as `text_completion` objects, streamed or whole. `n` answers to each prompt are sent, each
    behind its prompt where there are `echoes`."""

    def __init__(self, model: str, *, n: int, wants_usage: bool, wants_logprobs: bool) -> None:
        super().__init__("cmpl", "text_completion", model, wants_usage=wants_usage)
        self._n = n
        self._wants_logprobs = wants_logprobs
        self._has_begun: set[int] = set()
        self._scored: dict[int, list[TokenLogprob]] = {}
        self.echoes: list[str] = []

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
        if not self.echoes or chunk.index in self._has_begun:
            return chunk.text
        self._has_begun.add(chunk.index)
        return self.echoes[chunk.index // self._n] + chunk.text

    def _shown(self, chunk: TokenChunk) -> dict[str, Any] | None:
        tokens = self._fitted(chunk.scored, chunk.index // self._n) + chunk.logprobs
        return self.speller(chunk.index).legacy(tokens) if tokens else None

    def _fitted(self, scored: list[TokenLogprob], prompt: int) -> list[TokenLogprob]:
        return fitted(scored, self.echoes[prompt]) if scored and self.echoes else []

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
        text = (self.echoes[prompt] if self.echoes else "") + self.text(made)
        tokens = self._fitted(self._scored.get(made, []), prompt) + self.logprobs(made)
        logprobs = Speller().legacy(tokens) if self._wants_logprobs else None
        return _choice(index, text, answer.finishes[made], logprobs)

    def _likelihood(self, index: int) -> float:
        """The mean log-probability of an answer's tokens; that of none is nothing to go by."""
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
    decision = agent.route(body.model, is_text=True)
    origin = origin_of(request)
    parse_special = body.parse_special
    if parse_special is None:
        parse_special = settings.api.completions_parse_special
    spec = GenerateSpec(
        prompts=[
            Prompt(text=prompt, suffix=body.suffix or None, parse_special=parse_special)
            if isinstance(prompt, str)
            else Prompt(tokens=prompt)
            for prompt in body.prompts()
        ],
        sampling=body.sampling(agent.defaults(decision)),
        # OpenAI's default for completions; a chat's answer ends by itself, a text need not.
        max_tokens=body.max_tokens if body.max_tokens is not None else 16,
        clamps=settings.api.clamps(by_default=False),
        stop=body.stops(),
        n=body.n_made,
        scope=origin.key_id,
        ignore_eos=body.ignore_eos,
        priority=bounded_priority(caller_of(request), body.priority),
        logprobs=0 if body.n_made > (body.n or 1) and body.logprobs is None else body.logprobs,
        scores_prompt=body.scores_prompt,
    )
    writer = CompletionWriter(
        decision.model_id,
        n=body.n or 1,
        wants_usage=body.wants_usage,
        wants_logprobs=body.logprobs is not None,
    )

    async def read_prompts(client: EngineClient) -> None:
        """What an echo begins with. Ids that no token has are the engine's to refuse."""
        with contextlib.suppress(InvalidParameter):
            writer.echoes = [
                prompt
                if isinstance(prompt, str)
                else await client.ask(DetokenizeSpec(tokens=prompt))
                for prompt in body.prompts()
            ]

    return AnswerResponse(
        agent.ask(origin, decision, spec, read_prompts if body.echo else None),
        writer,
        params={"messages": "prompt"},
        is_stream=bool(body.stream),
        ping_interval_s=settings.http.ping_interval_s,
        write_timeout_s=settings.http.write_timeout_s,
    )
