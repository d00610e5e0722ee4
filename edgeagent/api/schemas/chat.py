"""Bodies of `POST /v1/chat/completions`."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

import msgspec
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from edgeagent.api.schemas.common import GenerationRequest, TimingsBody, UsageBody
from edgeagent.api.schemas.marks import Ignored
from edgeagent.api.schemas.response_format import ResponseFormat
from edgeagent.api.schemas.stored import Metadata
from edgeagent.errors import UnsupportedParameter
from edgeagent.types import Form


class ChatMessage(BaseModel):
    """One turn. `content` may be text or a list of text parts, which are joined."""

    model_config = ConfigDict(extra="allow")

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | None = None
    name: str | None = None

    @field_validator("content", mode="before")
    @classmethod
    def _join_parts(cls, content: Any) -> Any:
        return "".join(map(_part_text, content)) if isinstance(content, list) else content

    @model_validator(mode="after")
    def _reaches_the_worker(self) -> ChatMessage:
        # What else a message holds is the template's to read, as far as a frame can carry it.
        try:
            msgspec.msgpack.encode(self.model_extra)
        except (OverflowError, RecursionError):
            raise ValueError(
                "a message holds numbers of at most 64 bits and few nested levels"
            ) from None
        return self

    def for_template(self) -> dict[str, Any]:
        """As a chat template reads it: `developer` is what templates call `system`."""
        message = self.model_dump(exclude_none=True)
        message["role"] = "system" if self.role == "developer" else self.role
        message.setdefault("content", "")
        return message


def _part_text(part: Any) -> str:
    if not isinstance(part, dict) or not isinstance(part.get("type"), str):
        raise ValueError("a content part is an object with a `type`")
    if part["type"] == "refusal" and isinstance(part.get("refusal"), str):
        return str(part["refusal"])
    if part["type"] != "text":
        raise UnsupportedParameter(
            f"A content part of type {part['type'][:40]!r} needs a model that can read it, and this "
            "one reads text only: send parts of type `text`.",
            param="messages",
        )
    if not isinstance(part.get("text"), str):
        raise ValueError("a content part of type `text` has a string `text`")
    return str(part["text"])


class ChatRequest(GenerationRequest):
    """OpenAI's chat request. What is accepted and ignored says so."""

    refused: ClassVar[dict[str, tuple[object, ...]]] = {
        "tools": ([],),
        "tool_choice": ("none", "auto"),
        "functions": ([],),
        "function_call": ("none", "auto"),
        "logprobs": (False,),
        "top_logprobs": (0,),
        "modalities": (["text"],),
        "audio": (),
        "web_search_options": (),
        "prediction": (),
    }

    messages: list[ChatMessage] = Field(min_length=1, max_length=4096)
    max_tokens: int | None = Field(None, ge=1, le=1 << 20)
    max_completion_tokens: int | None = Field(None, ge=1, le=1 << 20)
    response_format: ResponseFormat | None = None
    metadata: Metadata | None = Field(
        None, description="kept with a stored answer; `subject` names whom it is about"
    )
    store: bool | None = Field(None, description="keep question and answer on this device")
    reasoning_effort: Annotated[str | None, Ignored()] = None
    verbosity: Annotated[str | None, Ignored()] = None
    parallel_tool_calls: Annotated[bool | None, Ignored("without tools")] = None
    service_tier: Annotated[str | None, Ignored()] = None
    safety_identifier: Annotated[str | None, Ignored()] = None
    prompt_cache_key: Annotated[str | None, Ignored("prefixes are found by themselves")] = None
    prompt_cache_retention: Annotated[str | None, Ignored()] = None

    def form(self, *, allow_grammars: bool) -> Form | None:
        """What the answer must look like. Raises: InvalidParameter for what is not allowed here."""
        chosen = self.response_format
        return chosen.form(allow_grammars=allow_grammars) if chosen is not None else None

    @property
    def answer_limit(self) -> int | None:
        return self.max_completion_tokens or self.max_tokens


class AnswerMessage(BaseModel):
    role: Literal["assistant"] = "assistant"
    content: str | None
    refusal: str | None = None


class ChatChoice(BaseModel):
    index: int
    message: AnswerMessage
    logprobs: None = None
    finish_reason: Literal["stop", "length", "tool_calls"]


class ChatAnswer(BaseModel):
    """A whole answer; streams send `chat.completion.chunk` objects instead."""

    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    choices: list[ChatChoice]
    usage: UsageBody
    timings: TimingsBody
