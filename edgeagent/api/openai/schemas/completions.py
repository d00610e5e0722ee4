"""Bodies of `POST /v1/completions`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from edgeagent.api.http.body_base import BodyModel
from edgeagent.api.http.field_support import ExtensionField
from edgeagent.api.openai.schemas.shared_request_fields import (
    GenerationRequest,
    TimingsBody,
    UsageBody,
)
from edgeagent.errors import InvalidParameter, UnsupportedParameter

TokenId = Annotated[int, Field(ge=0, lt=1 << 31, strict=True)]
MAX_PROMPTS = 64


class CompletionRequest(GenerationRequest):
    """OpenAI's completion request: a text, token ids, or a list of either."""

    prompt: (
        str
        | Annotated[list[TokenId], Field(min_length=1, max_length=1 << 20)]
        | Annotated[list[str], Field(min_length=1, max_length=MAX_PROMPTS)]
        | Annotated[
            list[Annotated[list[TokenId], Field(min_length=1)]],
            Field(min_length=1, max_length=MAX_PROMPTS),
        ]
    )
    max_tokens: int | None = Field(
        None, ge=0, le=1 << 20, description="0 only scores a prompt, with `echo` and `logprobs`"
    )
    suffix: str | None = Field(
        None,
        description="the text after the answer; for models that are trained to fill in the middle",
    )
    echo: bool | None = Field(
        None,
        description="put the prompt before the answer; with `logprobs`, with those of its tokens",
    )
    best_of: int | None = Field(
        None,
        ge=1,
        le=16,
        description="number of answers to generate, of which the `n` most probable are sent",
    )
    parse_special: Annotated[
        bool | None,
        ExtensionField(
            "read names of special tokens in the prompt, such as `<|im_end|>`, as those tokens; "
            "otherwise they are text. Default: the setting `completions_parse_special`"
        ),
    ] = None
    logprobs: int | None = Field(
        None,
        ge=0,
        le=5,
        description="the log-probability of each token, before sampling, and this number of the most "
        "probable alternatives",
    )

    @model_validator(mode="after")
    def _fits_together(self) -> CompletionRequest:
        if self.n_made < (self.n or 1):
            raise InvalidParameter(
                f"`best_of` is {self.best_of} and `n` is {self.n}: generate at least `n` answers.",
                param="best_of",
            )
        if self.n_made > (self.n or 1) and self.stream:
            raise InvalidParameter(
                "`best_of` above `n` cannot be streamed, since the best are known only at the end: leave "
                "out one of them.",
                param="best_of",
            )
        if self.suffix and not all(isinstance(prompt, str) for prompt in self.prompts()):
            raise InvalidParameter(
                "`suffix` goes with a prompt that is text: send text in place of token ids.",
                param="suffix",
            )
        if self.max_tokens == 0 and not self.scores_prompt:
            raise InvalidParameter(
                "`max_tokens` 0 generates no answer and is for scoring a prompt: add `echo` and "
                "`logprobs`, or ask for tokens.",
                param="max_tokens",
            )
        if self.suffix and self.scores_prompt:
            raise UnsupportedParameter(
                "`suffix` reorders the prompt, so that its tokens cannot be scored: leave out "
                "`suffix`, `echo` or `logprobs`.",
                param="suffix",
            )
        return self

    @property
    def scores_prompt(self) -> bool:
        """Whether the log-probabilities of the prompt's tokens are wanted."""
        return bool(self.echo) and self.logprobs is not None

    @property
    def n_made(self) -> int:
        """The number of answers to generate for each prompt."""
        return self.best_of or self.n or 1

    def prompts(self) -> list[str | list[int]]:
        if isinstance(self.prompt, str):
            return [self.prompt]
        if isinstance(self.prompt[0], int):
            return [self.prompt]
        return list(self.prompt)


class CompletionLogprobs(BodyModel):
    """One list for each property of the tokens, which add up to the text; offsets in characters."""

    tokens: list[str]
    token_logprobs: list[float | None]
    top_logprobs: list[dict[str, float] | None]
    text_offset: list[int]


class CompletionChoice(BodyModel):
    index: int
    text: str
    logprobs: CompletionLogprobs | None = None
    finish_reason: Literal["stop", "length"]


class CompletionAnswer(BodyModel):
    """A whole completion; streams send the same object with pieces of the text."""

    id: str
    object: Literal["text_completion"] = "text_completion"
    created: int
    model: str
    system_fingerprint: str
    choices: list[CompletionChoice]
    usage: UsageBody
    timings: TimingsBody
