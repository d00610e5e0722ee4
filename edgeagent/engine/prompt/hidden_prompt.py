"""A request in which all texts of the client are hidden from the template (`special_token_guard`)."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import msgspec

from edgeagent.engine.prompt.special_token_guard import LiteralTextGuard
from edgeagent.errors import InvalidParameter
from edgeagent.types.prompt import Prompt
from edgeagent.types.tools import ToolUse


def all_told(prompt: Prompt, tools: ToolUse | None) -> list[Any]:
    """All values of the client that a template gets. Arguments of calls are JSON, in which a text may be
    escaped."""
    told: list[Any] = [prompt.messages, prompt.variables, prompt.prefill]
    for message in prompt.messages or ():
        for call in message.get("tool_calls") or ():
            told.append(_decoded(call["function"]["arguments"]))
    if tools is not None:
        told += [[tool.name, tool.description, tool.parameters] for tool in tools.tools]
    return told


def _decoded(arguments: str) -> Any:
    try:
        return json.loads(arguments)
    except ValueError:
        return arguments
    except RecursionError:
        raise InvalidParameter(
            "The arguments of a past call are nested too deeply: send flatter ones.",
            param="messages",
        ) from None


def hidden_prompt(prompt: Prompt, guard: LiteralTextGuard, markers: Iterable[str]) -> Prompt:
    """The prompt with its texts hidden. Some markers stay in messages of an assistant."""
    return msgspec.structs.replace(
        prompt,
        messages=[_hidden_message(message, guard, markers) for message in prompt.messages or ()],
        variables=guard.hide(prompt.variables),
        prefill=guard.hide_all_but(prompt.prefill, markers),
    )


def _hidden_message(
    message: dict[str, Any], guard: LiteralTextGuard, markers: Iterable[str]
) -> dict[str, Any]:
    hidden: dict[str, Any] = guard.hide(message)
    content = message.get("content")
    if message["role"] == "assistant" and isinstance(content, str):
        hidden = hidden | {"content": guard.hide_all_but(content, markers)}
    if message.get("tool_calls"):
        hidden = hidden | {
            "tool_calls": [_hidden_call(call, guard) for call in message["tool_calls"]]
        }
    return hidden


def _hidden_call(call: dict[str, Any], guard: LiteralTextGuard) -> dict[str, Any]:
    function = call["function"]
    arguments = guard.hide_json(function["arguments"])
    return {**guard.hide(call), "function": {**guard.hide(function), "arguments": arguments}}


def hidden_tools(use: ToolUse | None, guard: LiteralTextGuard) -> ToolUse | None:
    if use is None:
        return None
    tools = [
        msgspec.structs.replace(
            tool,
            name=guard.hide(tool.name),
            description=guard.hide(tool.description),
            parameters=guard.hide(tool.parameters),
        )
        for tool in use.tools
    ]
    return msgspec.structs.replace(use, tools=tools, name=guard.hide(use.name))
