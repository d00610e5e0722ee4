"""Bodies of `POST /v1/chat/completions`."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

import msgspec
from pydantic import ConfigDict, Field, field_validator, model_validator

from edgeagent.api.http.body_base import BodyModel
from edgeagent.api.http.field_support import ExtensionField, IgnoredField
from edgeagent.api.http.tool_calls import MAX_TOOLS, tool_use
from edgeagent.api.openai.schemas.edgeagent_object import ExtensionBody
from edgeagent.api.openai.schemas.response_format import ResponseFormat
from edgeagent.api.openai.schemas.shared_request_fields import (
    GenerationRequest,
    TimingsBody,
    TokenLogprobBody,
    UsageBody,
)
from edgeagent.api.openai.schemas.stored_chats import Metadata
from edgeagent.api.openai.schemas.tools import (
    MAX_CALLS,
    AllowedToolsChoice,
    AnswerCall,
    AnswerCustomCall,
    CallId,
    ChatTool,
    CustomChoice,
    FunctionChoice,
    ToolCall,
    ToolChoice,
    chosen_name,
)
from edgeagent.errors import InvalidParameter, UnsupportedParameter
from edgeagent.serving.tool_offer import ToolOffer
from edgeagent.types.caller import Caller
from edgeagent.types.generation import Form
from edgeagent.types.prompt import Prompt
from edgeagent.types.tools import ToolUse

MAX_TEMPLATE_VARIABLES = 16
MAX_TEMPLATE_BYTES = 16 << 10
MAX_PREDICTION_CHARS = 1 << 20
# Roles whose messages may have no content: calls stand for it, or a call returned nothing.
MAY_BE_EMPTY = frozenset({"assistant", "tool"})
# Variables of a template that we set ourselves.
RESERVED = frozenset({
    "messages", "tools", "add_generation_prompt", "bos_token", "eos_token", "continue_final_message",
})  # fmt: skip


class ChatMessage(BodyModel):
    """One message. `content` may be text or a list of text parts, which are joined."""

    model_config = ConfigDict(extra="allow")

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | None = None
    name: str | None = None
    tool_calls: Annotated[list[ToolCall], Field(max_length=MAX_CALLS)] | None = Field(
        None, description="the calls of an answer"
    )
    tool_call_id: CallId | None = Field(None, description="the call whose result `content` is")

    @field_validator("content", mode="before")
    @classmethod
    def _join_parts(cls, content: Any) -> Any:
        return "".join(map(_part_text, content)) if isinstance(content, list) else content

    @model_validator(mode="after")
    def _fits_its_role(self) -> ChatMessage:
        if self.role == "tool" and self.tool_call_id is None:
            raise ValueError("a message of the role `tool` needs the `tool_call_id` of its call")
        if self.content is None and self.role not in MAY_BE_EMPTY:
            raise ValueError(f"a message of the role `{self.role}` needs `content`")
        if self.role != "assistant" and self.tool_calls:
            raise ValueError("`tool_calls` go with the role `assistant`")
        # Other fields of a message are left to the template, as far as a frame can carry them.
        try:
            msgspec.msgpack.encode(self.model_extra)
        except (OverflowError, RecursionError):
            raise ValueError(
                "a message has numbers of at most 64 bits and few nested levels"
            ) from None
        return self

    def for_template(self) -> dict[str, Any]:
        """As a chat template reads it: templates call `developer` `system`."""
        message = self.model_dump(exclude_none=True)
        message["role"] = "system" if self.role == "developer" else self.role
        message.setdefault("content", "")
        if not self.tool_calls:
            message.pop("tool_calls", None)
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


class Prediction(BodyModel):
    """Text that the answer probably has in common with, such as the file that it edits."""

    type: Literal["content"]
    content: str = Field(max_length=MAX_PREDICTION_CHARS)

    @field_validator("content", mode="before")
    @classmethod
    def _join_parts(cls, content: Any) -> Any:
        return "".join(map(_part_text, content)) if isinstance(content, list) else content


class ChatRequest(GenerationRequest):
    """OpenAI's chat request. Fields that are accepted and ignored are marked."""

    refused: ClassVar[dict[str, tuple[object, ...]]] = {
        # Former names of `tools` and `tool_choice`; current clients send the new ones.
        "functions": ([],),
        "function_call": ("none", "auto"),
        "modalities": (["text"],),
        "audio": (),
        "web_search_options": (),
    }

    instead: ClassVar[dict[str, str]] = {
        "functions": "send `tools`",
        "function_call": "send `tool_choice`",
    }

    messages: list[ChatMessage] = Field(min_length=1, max_length=4096)
    max_tokens: int | None = Field(None, ge=1, le=1 << 20)
    max_completion_tokens: int | None = Field(None, ge=1, le=1 << 20)
    response_format: ResponseFormat | None = None
    logprobs: bool | None = Field(
        None,
        description="the log-probability of each token, before sampling; among the tokens that the "
        "format allows, where it has one",
    )
    top_logprobs: int | None = Field(
        None, ge=0, le=20, description="the number of most probable alternatives to each token"
    )
    prediction: Prediction | None = Field(
        None,
        description="text that the answer probably repeats: its tokens are tried ahead, which is faster "
        "where they are right; the answer does not depend on it",
    )
    metadata: Metadata | None = Field(
        None,
        description="stored with the answer; `subject` names the person it is about, `domain` the domain "
        "for an assistant model, `escalate` (true, false) whether a larger model may answer, `privacy` "
        "(local, site, any) where it may be answered",
    )
    store: bool | None = Field(None, description="store question and answer on this device")
    tools: Annotated[list[ChatTool], Field(max_length=MAX_TOOLS)] | None = Field(
        None,
        description="functions that the model may call; once its last two calls were the same "
        "and had their results, it answers with text unless `tool_choice` asks for a call",
    )
    tool_choice: ToolChoice | None = Field(
        None, description="default: `auto` with tools; a required call is enforced"
    )
    parallel_tool_calls: bool | None = Field(
        None, description="whether an answer may have more than one call; default: true"
    )
    reasoning_effort: str | None = Field(
        None,
        max_length=20,
        description="passed to the model's template; `none` also turns `enable_thinking` off",
    )
    chat_template_kwargs: Annotated[
        dict[str, Any] | None,
        ExtensionField("other variables of the model's template, such as `enable_thinking`"),
    ] = Field(None, max_length=MAX_TEMPLATE_VARIABLES)
    continue_final_message: Annotated[
        bool | None,
        ExtensionField(
            "the answer continues the last message, which is the assistant's and is not repeated"
        ),
    ] = None
    add_generation_prompt: Annotated[
        bool | None,
        ExtensionField(
            "false: the prompt does not open an answer; a last message of the assistant is continued"
        ),
    ] = None
    verbosity: Annotated[str | None, IgnoredField()] = None
    service_tier: Annotated[str | None, IgnoredField()] = None
    safety_identifier: Annotated[str | None, IgnoredField()] = None
    prompt_cache_key: Annotated[str | None, IgnoredField("prefixes are found automatically")] = None
    prompt_cache_retention: Annotated[str | None, IgnoredField()] = None

    @field_validator("chat_template_kwargs")
    @classmethod
    def _is_small(cls, given: dict[str, Any] | None) -> dict[str, Any] | None:
        for name in given or ():
            if name in RESERVED or not name.isidentifier():
                raise ValueError(f"{name[:40]!r} cannot be set by a request: leave it out")
        try:
            n_bytes = len(msgspec.msgpack.encode(given))
        except (OverflowError, RecursionError):
            raise ValueError(
                "numbers of at most 64 bits and few nested levels are allowed"
            ) from None
        if n_bytes > MAX_TEMPLATE_BYTES:
            raise ValueError(f"{n_bytes} bytes, the limit is {MAX_TEMPLATE_BYTES}: send less")
        return given

    @model_validator(mode="after")
    def _results_have_calls(self) -> ChatRequest:
        called: set[str] = set()
        for i, message in enumerate(self.messages):
            called.update(call.id for call in message.tool_calls or ())
            if message.role == "tool" and message.tool_call_id not in called:
                raise InvalidParameter(
                    f"`messages.{i}.tool_call_id` names the call {str(message.tool_call_id)[:80]!r}, which "
                    "no message before it has: send the assistant's message with its `tool_calls` first.",
                    param=f"messages.{i}.tool_call_id",
                )
        return self

    @model_validator(mode="after")
    def _top_logprobs_need_logprobs(self) -> ChatRequest:
        if self.top_logprobs and not self.logprobs:
            raise InvalidParameter(
                "`top_logprobs` is only allowed when `logprobs` is true: leave one out or add the other.",
                param="top_logprobs",
            )
        return self

    @property
    def n_logprobs(self) -> int | None:
        """The number of alternatives to each token; None: no log-probabilities."""
        return self.top_logprobs or 0 if self.logprobs else None

    def tool_use(self, caller: Caller, *, has_own: bool = False) -> ToolUse | None:
        """The tools that the answer may call; with `has_own` the model has tools of its own. Raises:
        InvalidParameter, Forbidden."""
        offer = self.tool_offer()
        tools = offer.tools
        is_parallel = self.parallel_tool_calls is not False
        chosen = self.tool_choice
        if not has_own:
            offer.check_choice(is_required=chosen == "required")
        if isinstance(chosen, FunctionChoice | CustomChoice):
            name = chosen_name(chosen)
            return tool_use(tools, caller, name=name, is_parallel=is_parallel, has_own=has_own)
        if isinstance(chosen, AllowedToolsChoice):
            names = [chosen_name(choice) for choice in chosen.allowed_tools.tools]
            return tool_use(
                tools,
                caller,
                choice=chosen.allowed_tools.mode,
                only=names,
                is_parallel=is_parallel,
            )
        return tool_use(
            tools, caller, choice=chosen or "auto", is_parallel=is_parallel, has_own=has_own
        )

    def tool_offer(self) -> ToolOffer:
        """The tools as the model sees them, and notes about those that were left out."""
        offer = ToolOffer()
        for tool in self.tools or ():
            tool.offer(offer)
        return offer

    @model_validator(mode="after")
    def _continues_an_answer(self) -> ChatRequest:
        if not self.continue_final_message:
            return self
        last = self.messages[-1]
        if last.role != "assistant" or last.tool_calls or len(self.messages) == 1:
            raise InvalidParameter(
                "`continue_final_message` goes on with a last message of the role `assistant` without calls, "
                f"and the last of {len(self.messages)} is one of {last.role!r}: add the beginning of the "
                "answer behind a question, or leave the field out.",
                param="continue_final_message",
            )
        if self.add_generation_prompt:
            raise InvalidParameter(
                "`continue_final_message` and `add_generation_prompt` cannot both be true: leave one out.",
                param="add_generation_prompt",
            )
        return self

    def prompt(self) -> Prompt:
        """The messages and options for the model's template."""
        messages = [message.for_template() for message in self.messages]
        opens_answer, prefill = self.add_generation_prompt is not False, ""
        is_begun = messages[-1]["role"] == "assistant" and "tool_calls" not in messages[-1]
        if len(messages) > 1 and is_begun and (self.continue_final_message or not opens_answer):
            prefill, opens_answer = str(messages.pop()["content"]), True
        return Prompt(
            messages=messages,
            prefill=prefill,
            opens_answer=opens_answer,
            variables=self.template_variables(),
        )

    def template_variables(self) -> dict[str, Any]:
        """The variables for the model's template."""
        told: dict[str, Any] = {}
        if self.reasoning_effort is not None:
            told["reasoning_effort"] = self.reasoning_effort
            if self.reasoning_effort == "none":
                told["enable_thinking"] = False
        return told | (self.chat_template_kwargs or {})

    def form(self, *, allow_grammars: bool) -> Form | None:
        """The format of the answer. Raises: InvalidParameter for one that is not allowed here."""
        chosen = self.response_format
        return chosen.form(allow_grammars=allow_grammars) if chosen is not None else None

    @property
    def answer_limit(self) -> int | None:
        return self.max_completion_tokens or self.max_tokens


class ContentLogprobs(BodyModel):
    """The tokens of the content, which add up to it."""

    content: list[TokenLogprobBody]
    refusal: None = None


class AnswerMessage(BodyModel):
    """`content` is null where there are calls without text."""

    role: Literal["assistant"] = "assistant"
    content: str | None
    refusal: str | None = None
    reasoning_content: str | None = Field(None, description="the reasoning before the answer")
    tool_calls: list[AnswerCall | AnswerCustomCall] | None = None


class ChatChoice(BodyModel):
    index: int
    message: AnswerMessage
    logprobs: ContentLogprobs | None = None
    finish_reason: Literal["stop", "length", "tool_calls"]


class ChatTokenCount(BodyModel):
    object: Literal["chat.completion.input_tokens"] = "chat.completion.input_tokens"
    model: str
    input_tokens: int


class ChatAnswer(BodyModel):
    """A whole answer; streams send `chat.completion.chunk` objects instead."""

    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    system_fingerprint: str
    choices: list[ChatChoice]
    usage: UsageBody
    timings: TimingsBody
    edgeagent: ExtensionBody | None = Field(
        None,
        description="where an assistant model was asked, or there are notes; in a stream, with the finish "
        "reason",
    )
