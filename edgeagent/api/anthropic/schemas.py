"""Bodies of `POST /v1/messages` and `/v1/messages/count_tokens`, in Anthropic's format."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

import msgspec
from pydantic import ConfigDict, Field, model_validator

from edgeagent.api.anthropic.content import (
    Blocks,
    TextBlock,
    Texts,
    left_out,
    turns,
    without_billing,
)
from edgeagent.api.anthropic.tools import AnthropicTool, ServiceTool, tool_offer_of
from edgeagent.api.http.body_base import BodyModel
from edgeagent.api.http.field_support import ExtensionField, IgnoredField, RequestModel
from edgeagent.api.http.tool_calls import tool_use
from edgeagent.api.openai.schemas.response_format import schema_form
from edgeagent.api.openai.schemas.shared_request_fields import StopText
from edgeagent.errors import InvalidParameter, ThreadUnsupported, UnsupportedParameter
from edgeagent.serving.tool_offer import ToolOffer, refuse_hosted_choice
from edgeagent.types.caller import Caller
from edgeagent.types.generation import Form
from edgeagent.types.prompt import Prompt
from edgeagent.types.sampling import Sampling
from edgeagent.types.tools import ToolUse

MAX_MESSAGES = 4096
MAX_TOOLS = 128
MAX_SERVERS = 20
MAX_STOPS = 16

Template = dict[str, Any]


class InputMessage(BodyModel):
    """One turn; text, or a list of blocks."""

    model_config = ConfigDict(extra="forbid", strict=True)

    role: Literal["user", "assistant", "system"]
    content: Blocks


class MetadataBody(BodyModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    user_id: Annotated[str | None, IgnoredField()] = Field(None, max_length=512)


class Thinking(BodyModel):
    """Whether blocks of thinking are sent. What a model thinks is its own: it is not bounded here."""

    model_config = ConfigDict(extra="forbid", strict=True)

    type: Literal["enabled", "disabled", "adaptive", "between_tools"]
    budget_tokens: Annotated[int | None, IgnoredField()] = Field(None, ge=1)
    display: Literal["summarized", "omitted"] | None = Field(
        None, description="`omitted` leaves out its text"
    )


class OutputFormat(BodyModel):
    """JSON by a schema."""

    model_config = ConfigDict(extra="forbid", strict=True)

    type: Literal["json_schema"]
    # `schema` is a method of every BaseModel.
    content: dict[str, Any] = Field(alias="schema", description="a JSON schema, which is enforced")


class OutputConfig(BodyModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    effort: str | None = Field(
        None, max_length=20, description="passed to the model's template as `reasoning_effort`"
    )
    format: OutputFormat | None = None


class ToolChoice(BodyModel):
    """`any` makes the answer a call, `tool` one of the tool `name`."""

    model_config = ConfigDict(extra="forbid", strict=True)

    type: Literal["auto", "any", "tool", "none"]
    name: str | None = None
    disable_parallel_tool_use: bool | None = None

    @model_validator(mode="after")
    def _names_a_tool(self) -> ToolChoice:
        if (self.type == "tool") != (self.name is not None):
            raise ValueError("`name` goes with the type `tool` only")
        return self


_CHOICES: dict[str, Literal["none", "auto", "required"]] = {
    "none": "none", "auto": "auto", "any": "required", "tool": "required",
}  # fmt: skip


class Conversation(RequestModel):
    """What is said to the model: counted, or answered."""

    model: str = Field(max_length=200, description="a model id, or `default`")
    messages: list[InputMessage] = Field(min_length=1, max_length=MAX_MESSAGES)
    system: Texts | None = None
    tools: Annotated[list[AnthropicTool], Field(max_length=MAX_TOOLS)] | None = None
    mcp_servers: Annotated[list[dict[str, Any]], Field(max_length=MAX_SERVERS)] | None = Field(
        None, description="not contacted: left out, and a note says so"
    )
    tool_choice: ToolChoice | None = None
    thinking: Thinking | None = Field(
        None, description="default, and with `disabled`: the reasoning of the model is not sent"
    )
    output_config: OutputConfig | None = None
    cache_control: Annotated[dict[str, Any] | None, IgnoredField("prefixes are found")] = None
    context_management: Annotated[dict[str, Any] | None, IgnoredField()] = None
    speed: Annotated[str | None, IgnoredField()] = None
    user_profile_id: Annotated[str | None, IgnoredField()] = None
    workspace_id: Annotated[str | None, IgnoredField()] = None

    container: str | dict[str, Any] | None = Field(
        None, description="no code runs in containers here: left out, and a note says so"
    )

    refused: ClassVar[dict[str, tuple[object, ...]]] = {"thread": ()}
    refusals: ClassVar[dict[str, type[UnsupportedParameter]]] = {"thread": ThreadUnsupported}
    instead: ClassVar[dict[str, str]] = {
        "thread": "leave it out and send the whole conversation in `messages`"
    }

    def prompt(self) -> Prompt:
        """What the model's template is given. A last turn of the assistant is how the answer begins.

        Raises: InvalidParameter for results of tools that nobody called.
        """
        system = without_billing(self.system or [])
        messages = turns(system, [(m.role, m.content) for m in self.messages])
        if not messages:
            raise InvalidParameter("`messages` have no content at all: add some.", param="messages")
        prefill = ""
        last = messages[-1]
        if last["role"] == "assistant" and not last.get("tool_calls"):
            if self.form() is not None:
                raise InvalidParameter(
                    "The last message is the assistant's, and `output_config.format` says how the whole "
                    "answer must look: leave one of them out.",
                    param="messages",
                )
            prefill = str(last["content"])
            messages.pop()
            if not messages:
                raise InvalidParameter(
                    "`messages` has only the beginning of an answer: add the question.",
                    param="messages",
                )
        return Prompt(messages=messages, prefill=prefill, variables=self.template_variables())

    def tool_use(self, caller: Caller) -> ToolUse | None:
        """The tools that the answer may call. Raises: InvalidParameter, Forbidden."""
        chosen = self.tool_choice or ToolChoice(type="auto")
        offer = self.tool_offer()
        offer.check_choice(is_required=chosen.type == "any")
        for tool in self.tools or ():
            if (
                isinstance(tool, ServiceTool)
                and chosen.name is not None
                and tool.name == chosen.name
            ):
                raise refuse_hosted_choice(tool.type)
        return tool_use(
            offer.tools,
            caller,
            choice=_CHOICES[chosen.type],
            name=chosen.name,
            is_parallel=not chosen.disable_parallel_tool_use,
        )

    def tool_offer(self) -> ToolOffer:
        """The tools as a model sees them, and what was left out."""
        return tool_offer_of(self.tools or (), n_servers=len(self.mcp_servers or ()))

    def notes(self) -> list[str]:
        """What of the request no model here sees."""
        notes = [*self.tool_offer().notes, *left_out(b for m in self.messages for b in m.content)]
        if self.container is not None:
            notes.append("container: no code runs in containers here; it was left out.")
        return notes

    def template_variables(self) -> dict[str, Any]:
        told: dict[str, Any] = {}
        if self.thinking is not None:
            told["enable_thinking"] = self.thinking.type != "disabled"
        if self.output_config is not None and self.output_config.effort is not None:
            told["reasoning_effort"] = self.output_config.effort
        return told

    def form(self) -> Form | None:
        """What the answer must look like."""
        if self.output_config is None or self.output_config.format is None:
            return None
        return schema_form(
            self.output_config.format.content, "output_config.format.schema", is_strict=True
        )

    @property
    def shows_thinking(self) -> bool:
        chosen = self.thinking
        return (
            chosen is not None
            and chosen.type != "disabled"
            and chosen.display in (None, "summarized")
        )


class MessagesRequest(Conversation):
    """Anthropic's request for an answer. What is accepted and ignored says so."""

    max_tokens: int = Field(
        ge=1, lt=1 << 63, description="brought down to what the context has room for"
    )
    stop_sequences: Annotated[list[StopText], Field(max_length=MAX_STOPS)] | None = None
    stream: bool | None = False
    temperature: float | None = Field(None, ge=0, le=2, allow_inf_nan=False)
    top_p: float | None = Field(None, ge=0, le=1, allow_inf_nan=False)
    top_k: int | None = Field(None, ge=0, le=1_000_000, description="0 is no cut by rank")
    metadata: MetadataBody | None = None
    service_tier: Annotated[str | None, IgnoredField()] = None
    inference_geo: Annotated[str | None, IgnoredField()] = None
    diagnostics: Annotated[dict[str, Any] | None, IgnoredField()] = None
    seed: Annotated[int | None, ExtensionField()] = Field(None, ge=-(1 << 63), lt=1 << 63)
    route_trace: Annotated[
        bool | None,
        ExtensionField("the answer has the decision about its model: `edgeagent.routing`"),
    ] = None

    def sampling(self, defaults: Sampling) -> Sampling:
        """What the request says over what the model's defaults say."""
        given = {
            "temperature": self.temperature,
            "top_p": self.top_p,
            "top_k": self.top_k,
            "seed": self.seed,
        }
        return msgspec.structs.replace(
            defaults, **{name: value for name, value in given.items() if value is not None}
        )


class CountRequest(Conversation):
    """A conversation whose tokens are counted."""


class ThinkingBody(BodyModel):
    type: Literal["thinking"] = "thinking"
    thinking: str
    signature: str = Field(description="empty: nothing is signed or checked here")


class ToolUseBody(BodyModel):
    type: Literal["tool_use"] = "tool_use"
    id: str
    name: str
    input: dict[str, Any]


class AnthropicUsage(BodyModel):
    """Tokens. `input_tokens` are those that were not in the cache, as Anthropic counts."""

    input_tokens: int
    cache_creation_input_tokens: int = 0
    cache_read_input_tokens: int
    output_tokens: int


class MessageAnswer(BodyModel):
    """A whole answer; streams send the events of which the SDK makes the same."""

    id: str
    type: Literal["message"] = "message"
    role: Literal["assistant"] = "assistant"
    model: str
    content: list[ThinkingBody | TextBlock | ToolUseBody]
    stop_reason: Literal["end_turn", "max_tokens", "stop_sequence", "tool_use"]
    stop_sequence: str | None
    usage: AnthropicUsage


class CountAnswer(BodyModel):
    input_tokens: int


class AnthropicErrorDetail(BodyModel):
    type: str
    message: str


class AnthropicError(BodyModel):
    """The format of every error below `/v1/messages`."""

    type: Literal["error"] = "error"
    error: AnthropicErrorDetail
    request_id: str | None
