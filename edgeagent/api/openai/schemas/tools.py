"""Tools in requests, and calls of them in messages."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from pydantic import (
    ConfigDict,
    Discriminator,
    Field,
    StringConstraints,
    Tag,
    field_validator,
    model_validator,
)

from edgeagent.api.http.body_base import BodyModel
from edgeagent.api.http.field_support import STRICT, IgnoredField
from edgeagent.api.http.tool_calls import MAX_TOOLS, NAME
from edgeagent.serving.tool_offer import ToolOffer, arguments_of, require_hosted
from edgeagent.types.tools import Tool

MAX_CALLS = 128

ToolName = Annotated[str, StringConstraints(pattern=NAME)]
CallId = Annotated[str, StringConstraints(min_length=1, max_length=256)]


class FunctionDefinition(BodyModel):
    """What a model is told of a function."""

    model_config = ConfigDict(extra="forbid", strict=True)

    name: ToolName
    description: str | None = None
    parameters: dict[str, Any] | None = Field(
        None, description="a JSON schema of the arguments; default: no arguments"
    )
    strict: bool | None = Field(None, description=STRICT)
    # Open WebUI repeats it here for the tools of OpenAPI servers.
    type: Annotated[Literal["function"] | None, IgnoredField()] = None


class CustomDefinition(BodyModel):
    """What a model is told of a tool that takes a text."""

    model_config = ConfigDict(extra="forbid", strict=True)

    name: ToolName
    description: str | None = None
    format: dict[str, Any] | None = Field(
        None, description="`text`; a grammar is accepted but not enforced, and a note says so"
    )


class CustomTool(BodyModel):
    """A tool whose input is text: the model sees a function with the one argument `input`."""

    model_config = ConfigDict(extra="forbid", strict=True)

    type: Literal["custom"]
    custom: CustomDefinition

    def offer(self, offer: ToolOffer) -> None:
        offer.add_custom(self.custom.name, self.custom.description, self.custom.format)


class HostedTool(BodyModel):
    """A tool that runs at OpenAI: left out, and a note says so."""

    model_config = ConfigDict(extra="ignore", strict=True)

    type: str = Field(max_length=64)

    def offer(self, offer: ToolOffer) -> None:
        offer.leave_out(self.type)


class FunctionTool(BodyModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    type: Literal["function"]
    function: FunctionDefinition

    def tool(self) -> Tool:
        function = self.function
        return Tool(
            name=function.name,
            description=function.description,
            parameters=function.parameters or {},
            is_strict=bool(function.strict),
        )

    def offer(self, offer: ToolOffer) -> None:
        offer.add(self.tool())


def _kind(value: Any) -> str | None:
    kind = value.get("type") if isinstance(value, dict) else getattr(value, "type", None)
    if not isinstance(kind, str):
        return None
    if kind in ("function", "custom"):
        return f"tag-{kind}"
    require_hosted(kind)
    return "tag-hosted"


ChatTool = Annotated[
    Annotated[FunctionTool, Tag("tag-function")]
    | Annotated[CustomTool, Tag("tag-custom")]
    | Annotated[HostedTool, Tag("tag-hosted")],
    Discriminator(
        _kind,
        custom_error_type="tool",
        custom_error_message="a tool is an object with a `type`, such as `function`",
    ),
]


class NamedFunction(BodyModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    name: str


class FunctionChoice(BodyModel):
    """One function, which must be called."""

    model_config = ConfigDict(extra="forbid", strict=True)

    type: Literal["function"]
    function: NamedFunction


class CustomChoice(BodyModel):
    """One custom tool, which must be called."""

    model_config = ConfigDict(extra="forbid", strict=True)

    type: Literal["custom"]
    custom: NamedFunction


class AllowedTools(BodyModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    mode: Literal["auto", "required"]
    tools: list[FunctionChoice | CustomChoice] = Field(min_length=1, max_length=MAX_TOOLS)


class AllowedToolsChoice(BodyModel):
    """Only some of the tools may be called."""

    model_config = ConfigDict(extra="forbid", strict=True)

    type: Literal["allowed_tools"]
    allowed_tools: AllowedTools


ToolChoice = (
    Literal["none", "auto", "required"] | FunctionChoice | CustomChoice | AllowedToolsChoice
)


def chosen_name(choice: FunctionChoice | CustomChoice) -> str:
    """The tool that a choice names."""
    return choice.custom.name if isinstance(choice, CustomChoice) else choice.function.name


class FunctionCallBody(BodyModel):
    """A function's name, and its arguments as the JSON text of an object."""

    name: str
    arguments: str


class CustomCallBody(BodyModel):
    """A custom tool's name, and the text that it is given."""

    name: str
    input: str


class AnswerCall(BodyModel):
    """A call that an answer asks for."""

    id: str
    type: Literal["function"] = "function"
    function: FunctionCallBody


class AnswerCustomCall(BodyModel):
    """A call of a custom tool."""

    id: str
    type: Literal["custom"]
    custom: CustomCallBody


class FunctionCallInput(FunctionCallBody):
    model_config = ConfigDict(strict=True)

    name: str = Field(min_length=1, max_length=256)

    @field_validator("arguments", mode="before")
    @classmethod
    def _null_is_none(cls, value: Any) -> Any:
        return "" if value is None else value

    @field_validator("arguments")
    @classmethod
    def _is_an_object(cls, text: str) -> str:
        if not text.strip():
            return "{}"  # some servers write calls without arguments so
        try:
            value = msgspec.json.decode(text)
        except (msgspec.DecodeError, RecursionError, UnicodeError) as exc:
            raise ValueError(
                f"the arguments of a call are the JSON text of an object, this is not JSON ({exc})"
            ) from None
        if not isinstance(value, dict):
            raise ValueError("the arguments of a call are the JSON text of an object")
        return text


class ToolCall(BodyModel):
    """A call, in a message of the assistant that is sent again."""

    model_config = ConfigDict(strict=True)

    id: CallId
    type: Literal["function"] = "function"
    function: FunctionCallInput

    @model_validator(mode="before")
    @classmethod
    def _read_custom(cls, value: Any) -> Any:
        """A call of a custom tool, as the function that the model knows it as."""
        if not isinstance(value, dict) or value.get("type") != "custom":
            return value
        custom = value.get("custom")
        if not isinstance(custom, dict) or not isinstance(custom.get("input"), str):
            raise ValueError(
                "a call of a custom tool has `custom` with a `name` and a text `input`"
            )
        function = {"name": custom.get("name"), "arguments": arguments_of(custom["input"])}
        return {"id": value.get("id"), "type": "function", "function": function}
