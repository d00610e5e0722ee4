"""Bodies of `POST /v1/completions`."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import BaseModel, Field

from edgeagent.api.schemas.common import GenerationRequest, TimingsBody, UsageBody

TokenId = Annotated[int, Field(ge=0, lt=1 << 31, strict=True)]
MAX_PROMPTS = 64


class CompletionRequest(GenerationRequest):
    """OpenAI's completion request: a text, token ids, or a list of either."""

    refused: ClassVar[dict[str, tuple[object, ...]]] = {
        "echo": (False,),
        "suffix": ("",),
        "best_of": (1,),
    }

    prompt: (
        str
        | Annotated[list[TokenId], Field(min_length=1, max_length=1 << 20)]
        | Annotated[list[str], Field(min_length=1, max_length=MAX_PROMPTS)]
        | Annotated[
            list[Annotated[list[TokenId], Field(min_length=1)]],
            Field(min_length=1, max_length=MAX_PROMPTS),
        ]
    )
    max_tokens: int | None = Field(None, ge=1, le=1 << 20)
    logprobs: int | None = Field(
        None,
        ge=0,
        le=5,
        description="how probable each token was, before sampling, and so many of the most probable in its "
        "place",
    )

    def prompts(self) -> list[str | list[int]]:
        if isinstance(self.prompt, str):
            return [self.prompt]
        if isinstance(self.prompt[0], int):
            return [self.prompt]
        return list(self.prompt)


class CompletionLogprobs(BaseModel):
    """One list for each property of the tokens, which add up to the text; offsets in characters."""

    tokens: list[str]
    token_logprobs: list[float]
    top_logprobs: list[dict[str, float]]
    text_offset: list[int]


class CompletionChoice(BaseModel):
    index: int
    text: str
    logprobs: CompletionLogprobs | None = None
    finish_reason: Literal["stop", "length"]


class CompletionAnswer(BaseModel):
    """A whole completion; streams send the same object with pieces of text."""

    id: str
    object: Literal["text_completion"] = "text_completion"
    created: int
    model: str
    choices: list[CompletionChoice]
    usage: UsageBody
    timings: TimingsBody
