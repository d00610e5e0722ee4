"""Tools in requests, and calls of them in messages."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, field_validator

from edgeagent.api.schemas.marks import Ignored
from edgeagent.api.tools import MAX_TOOLS, NAME
from edgeagent.types import Tool

MAX_CALLS = 128

ToolName = Annotated[str, StringConstraints(pattern=NAME)]
CallId = Annotated[str, StringConstraints(min_length=1, max_length=256)]


class FunctionDefinition(BaseModel):
    """What a model is told of a function."""

    model_config = ConfigDict(extra="forbid", strict=True)

    name: ToolName
    description: str | None = None
    parameters: dict[str, Any] | None = Field(
        None, description="a JSON schema of the arguments; without one there are none"
    )
    strict: Annotated[bool | None, Ignored("a schema always binds")] = None
    # Open WebUI says it again here for the tools of OpenAPI servers.
    type: Annotated[Literal["function"] | None, Ignored()] = None


class FunctionTool(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    type: Literal["function"]
    function: FunctionDefinition

    def tool(self) -> Tool:
        function = self.function
        return Tool(
            name=function.name,
            description=function.description,
            parameters=function.parameters or {},
        )


class NamedFunction(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    name: str


class FunctionChoice(BaseModel):
    """One function, which must be called."""

    model_config = ConfigDict(extra="forbid", strict=True)

    type: Literal["function"]
    function: NamedFunction


class AllowedTools(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    mode: Literal["auto", "required"]
    tools: list[FunctionChoice] = Field(min_length=1, max_length=MAX_TOOLS)


class AllowedToolsChoice(BaseModel):
    """Only some of the tools may be called."""

    model_config = ConfigDict(extra="forbid", strict=True)

    type: Literal["allowed_tools"]
    allowed_tools: AllowedTools


ToolChoice = Literal["none", "auto", "required"] | FunctionChoice | AllowedToolsChoice


class CalledFunction(BaseModel):
    """A function's name, and its arguments as the JSON text of an object."""

    name: str
    arguments: str


class AnswerCall(BaseModel):
    """A call that an answer asks for."""

    id: str
    type: Literal["function"] = "function"
    function: CalledFunction


class ReplayedFunction(CalledFunction):
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
            return "{}"  # how some servers write a call without arguments
        try:
            value = msgspec.json.decode(text)
        except (msgspec.DecodeError, RecursionError, UnicodeError) as exc:
            raise ValueError(
                f"the arguments of a call are the JSON text of an object, this is no JSON ({exc})"
            ) from None
        if not isinstance(value, dict):
            raise ValueError("the arguments of a call are the JSON text of an object")
        return text


class ToolCall(BaseModel):
    """A call, in a message of the assistant that is sent again."""

    model_config = ConfigDict(strict=True)

    id: CallId
    type: Literal["function"] = "function"
    function: ReplayedFunction
