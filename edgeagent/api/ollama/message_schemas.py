"""Ollama's messages, and their conversion to messages for a chat template."""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, ConfigDict, Field, field_validator

from edgeagent.api.http.body_base import BodyModel
from edgeagent.api.http.tool_calls import as_arguments
from edgeagent.errors import InvalidParameter, UnsupportedParameter
from edgeagent.types.tools import Tool

Template = dict[str, Any]


class ToolFunction(BodyModel):
    """What a model is told of a function."""

    model_config = ConfigDict(extra="ignore", strict=True)

    name: str = Field(min_length=1, max_length=256)
    description: str | None = None
    parameters: dict[str, Any] | None = Field(
        None, description="a JSON schema of the arguments, which is enforced"
    )


class OllamaTool(BodyModel):
    model_config = ConfigDict(extra="ignore", strict=True)

    type: Literal["function"] | None = None
    function: ToolFunction

    def tool(self) -> Tool:
        function = self.function
        return Tool(
            name=function.name,
            description=function.description,
            parameters=function.parameters or {},
        )


class CallFunction(BodyModel):
    model_config = ConfigDict(extra="ignore", strict=True)

    name: str = Field(min_length=1, max_length=256)
    arguments: Annotated[dict[str, Any], BeforeValidator(as_arguments)] = Field(
        default_factory=dict
    )

    def written(self) -> str:
        """The arguments as JSON text. Raises: InvalidParameter."""
        try:
            return json.dumps(self.arguments, ensure_ascii=False)
        except (RecursionError, ValueError):
            raise InvalidParameter(
                "The arguments of a call are nested too deeply or have a number that is too long: send "
                "simpler ones.",
                param="messages",
            ) from None


class ToolCallInput(BodyModel):
    """A call that an answer asked for, sent again."""

    model_config = ConfigDict(extra="ignore", strict=True)

    id: str | None = Field(None, min_length=1, max_length=256)
    function: CallFunction


class OllamaMessage(BodyModel):
    """One turn. Fields that are not known are left alone, as Ollama does."""

    model_config = ConfigDict(extra="ignore", strict=True)

    role: Literal["system", "user", "assistant", "tool"]
    content: str | None = None
    thinking: str | None = None
    images: list[Any] | None = Field(None, description="refused unless empty")
    tool_calls: Annotated[list[ToolCallInput], Field(max_length=128)] | None = None
    tool_name: str | None = Field(None, max_length=256)
    tool_call_id: str | None = Field(None, max_length=256)

    @field_validator("images")
    @classmethod
    def _has_none(cls, images: list[Any] | None) -> list[Any] | None:
        return no_images(images, "messages")


def no_images(images: list[Any] | None, param: str) -> list[Any] | None:
    """Raises: UnsupportedParameter where there are some."""
    if images:
        raise UnsupportedParameter(
            "An image needs a model for images, which is not available here: describe it as text.",
            param=param,
        )
    return images


def turns(messages: list[OllamaMessage]) -> list[Template]:
    """Messages as chat templates read them. Ollama's calls need no ids; the results of those that have
    none are theirs in order."""
    out: list[Template] = []
    waiting: list[tuple[str, str]] = []  # id and name of calls without a result yet
    n_calls = 0
    for index, message in enumerate(messages):
        # Home Assistant cuts long dialogues by count: the first results may have lost their calls.
        if message.role == "tool" and n_calls == 0 and index < len(messages) - 1:
            continue
        turn: Template = {"role": message.role, "content": message.content or ""}
        if message.thinking:
            turn["reasoning_content"] = message.thinking
        if message.role == "assistant" and message.tool_calls:
            turn["tool_calls"] = []
            waiting.clear()
            for call in message.tool_calls:
                name, call_id = call.function.name, call.id or f"call_{n_calls}"
                n_calls += 1
                waiting.append((call_id, name))
                function = {"name": name, "arguments": call.function.written()}
                turn["tool_calls"].append({"id": call_id, "type": "function", "function": function})
        if message.role == "tool":
            call_id, name = _answered(message, waiting)
            turn |= {"tool_call_id": call_id, "name": name}
        out.append(turn)
    return out


def _answered(message: OllamaMessage, waiting: list[tuple[str, str]]) -> tuple[str, str]:
    """The call whose result a message is: by its id, its name, or the first that has none."""
    for wanted, key in ((message.tool_call_id, 0), (message.tool_name, 1)):
        for call in waiting:
            if wanted is not None and call[key] == wanted:
                waiting.remove(call)
                return call
    if waiting and message.tool_call_id is None and message.tool_name is None:
        return waiting.pop(0)
    said = message.tool_name or message.tool_call_id or ""
    raise InvalidParameter(
        f"A message of the role `tool` has the result of {said[:80]!r}, which the assistant's message "
        "before it does not call: send that message with its `tool_calls` first.",
        param="messages",
    )
