"""How a model is told of tools and of past calls: by its template, or in words where that cannot.

What a template can is found out by rendering a small conversation with it, when the first request with
tools comes: most templates leave out in silence what they do not know.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from edgeagent.engine.syntax import PLAIN, chosen
from edgeagent.engine.syntax.family import Family
from edgeagent.errors import TemplateFailed
from edgeagent.types import Tool, ToolUse

logger = logging.getLogger(__name__)

Message = dict[str, Any]
Render = Callable[[dict[str, Any]], str]

# Mistral's templates want an id of nine letters and digits.
_ID = "probe0001"
_CALL = {"id": _ID, "type": "function"}
_ASK: list[Message] = [{"role": "user", "content": "probe_question"}]
_PROBE = Tool(
    name="probe_tool",
    description="probe_description",
    parameters={"type": "object", "properties": {"probe_key": {"type": "string"}}},
)


@dataclass(frozen=True)
class Abilities:
    """What a template renders: a system message, tools, past calls and their results, and whether it
    wants the arguments of those as JSON text. `family` is how it writes calls."""

    family: Family
    has_system: bool
    has_tools: bool
    has_calls: bool
    wants_text: bool = False


class Dialogue:
    """Messages and tools of one model's requests, as its template can take them. One thread."""

    def __init__(self, render: Render, template: str) -> None:
        self._render = render
        self._template = template
        self._abilities: Abilities | None = None

    @property
    def abilities(self) -> Abilities:
        if self._abilities is None:
            self._abilities = self._probed()
            logger.info(
                "template_probed family=%s tools=%s calls=%s",
                self._abilities.family.name,
                self._abilities.has_tools,
                self._abilities.has_calls,
            )
        return self._abilities

    def variables(self, messages: list[Message], use: ToolUse | None) -> dict[str, Any]:
        """What the template is told: messages, and tools where it can show them."""
        if use is None and not any(is_about_calls(message) for message in messages):
            return {"messages": messages}
        abilities = self.abilities
        if abilities.has_calls:
            messages = [_native(m, messages, abilities) for m in messages]
            if abilities.family.max_calls == 1:
                messages = _one_by_one(messages)
        else:
            messages = _in_words(messages, abilities.family)
        if use is None:
            return {"messages": messages}
        tools = [tool for tool in use.tools if use.name is None or tool.name == use.name]
        if abilities.has_tools:
            return {"messages": messages, "tools": [_described(tool) for tool in tools]}
        prompt = tool_prompt(tools, use, abilities.family)
        return {"messages": _with_system(messages, prompt, abilities.has_system)}

    # --- what the template can

    def _probed(self) -> Abilities:
        has_system = "probe_system" in self._tried(
            [{"role": "system", "content": "probe_system"}, *_ASK]
        )
        has_tools = "probe_tool" in self._tried(_ASK, [_described(_PROBE)])
        past, wants_text = "", False
        for wants_text in (False, True):
            past = self._past(wants_text)
            # Arguments as Python writes them are no JSON: the template prints what it is given.
            if past and "'probe_key'" not in past:
                break
            past = ""
        family = chosen(past or self._template)
        if not has_tools or family is None:
            return Abilities(PLAIN, has_system, False, False)
        return Abilities(family, has_system, True, bool(past), wants_text)

    def _past(self, wants_text: bool) -> str:
        arguments: Any = {"probe_key": "probe_value"}
        call = _CALL | {
            "function": {
                "name": "probe_tool",
                "arguments": json.dumps(arguments) if wants_text else arguments,
            }
        }
        rendered = self._tried([
            *_ASK,
            {"role": "assistant", "content": "", "tool_calls": [call]},
            {"role": "tool", "tool_call_id": _ID, "name": "probe_tool", "content": "probe_result"},
        ])  # fmt: skip
        is_all_there = all(
            part in rendered for part in ("probe_tool", "probe_value", "probe_result")
        )
        return rendered if is_all_there else ""

    def _tried(self, messages: list[Message], tools: list[dict[str, Any]] | None = None) -> str:
        variables: dict[str, Any] = {"messages": messages}
        if tools is not None:
            variables["tools"] = tools
        try:
            return self._render(variables)
        except TemplateFailed:
            return ""


def is_about_calls(message: Message) -> bool:
    return message["role"] == "tool" or bool(message.get("tool_calls"))


def _described(tool: Tool) -> dict[str, Any]:
    """A tool in the shape that templates know."""
    parameters = tool.parameters or {"type": "object", "properties": {}}
    return {
        "type": "function",
        "function": {
            "name": tool.name,
            "description": tool.description or "",
            "parameters": parameters,
        },
    }


# --- past calls


def _native(message: Message, messages: list[Message], abilities: Abilities) -> Message:
    """A message as a template with calls wants it: arguments as values, results with names."""
    if message["role"] == "tool":
        name = message.get("name") or _called(messages).get(message.get("tool_call_id", ""), "")
        return message | {"name": name, "tool_call_id": _short(message.get("tool_call_id", ""))}
    if not message.get("tool_calls"):
        return message
    calls = [
        call
        | {
            "id": _short(call["id"]),
            "function": {
                "name": call["function"]["name"],
                "arguments": call["function"]["arguments"]
                if abilities.wants_text
                else json.loads(call["function"]["arguments"]),
            },
        }
        for call in message["tool_calls"]
    ]
    return message | {"tool_calls": calls}


def _short(call_id: str) -> str:
    """Nine characters of a call's id, which is what Mistral's templates want and others do not mind."""
    letters = "".join(c for c in call_id if c.isascii() and c.isalnum())
    return letters[-9:].rjust(9, "0")


def _called(messages: list[Message]) -> dict[str, str]:
    """The names of all calls, by their ids."""
    return {
        call["id"]: call["function"]["name"]
        for message in messages
        for call in message.get("tool_calls") or ()
    }


def _one_by_one(messages: list[Message]) -> list[Message]:
    """Calls of one message as messages of one call, each followed by its result."""
    results: dict[str, Message] = {m["tool_call_id"]: m for m in messages if m["role"] == "tool"}
    out: list[Message] = []
    placed: set[str] = set()
    for message in messages:
        calls = message.get("tool_calls") or []
        if len(calls) < 2:
            if message["role"] != "tool" or message["tool_call_id"] not in placed:
                out.append(message)
            continue
        for i, call in enumerate(calls):
            content = message.get("content", "") if i == 0 else ""
            out.append(message | {"content": content, "tool_calls": [call]})
            if call["id"] in results:
                out.append(results[call["id"]])
                placed.add(call["id"])
    return out


def _in_words(messages: list[Message], family: Family) -> list[Message]:
    """Calls as text of the assistant, results as text of the user: for a template that knows neither."""
    names = _called(messages)
    out: list[Message] = []
    for message in messages:
        if message["role"] == "tool":
            name = names.get(message.get("tool_call_id", ""), "")
            told = {"role": "user", "content": f"Result of {name}:\n{message['content']}"}
        elif message.get("tool_calls"):
            written = [
                family.call_text(
                    call["function"]["name"], json.loads(call["function"]["arguments"])
                )
                for call in message["tool_calls"]
            ]
            content = message.get("content", "")
            told = {"role": "assistant", "content": "\n".join(filter(None, [content, *written]))}
        else:
            told = message
        # Many templates want users and assistants to take turns.
        if out and told["role"] == out[-1]["role"] == "user":
            out[-1] = out[-1] | {"content": f"{out[-1]['content']}\n\n{told['content']}"}
        else:
            out.append(told)
    return out


# --- tools in words


def tool_prompt(tools: list[Tool], use: ToolUse, family: Family) -> str:
    """What a model is told that was never taught to call, in few words: small models read few."""
    lines = ["You can call these functions:"]
    for tool in tools:
        told: dict[str, Any] = {"name": tool.name}
        if tool.description:
            told["description"] = tool.description
        if tool.parameters.get("properties"):
            told["parameters"] = tool.parameters
        lines.append(json.dumps(told, ensure_ascii=False, separators=(",", ":")))
    example = family.call_text("FUNCTION", {"ARGUMENT": "VALUE"})
    when = "Answer" if use.choice == "required" else "To call one, answer"
    lines.append(f"{when} with nothing but {example}")
    if use.is_parallel and family.max_calls > 1:
        lines.append("Several calls stand on a line each.")
    if use.choice == "auto":
        lines.append("Where no function helps, answer in words.")
    return "\n".join(lines)


def _with_system(messages: list[Message], prompt: str, has_system: bool) -> list[Message]:
    """The prompt at the end of the system message; of the first message, where there can be none."""
    first = messages[0]
    if first["role"] == "system" or not has_system:
        content = (
            f"{first['content']}\n\n{prompt}" if has_system else f"{prompt}\n\n{first['content']}"
        )
        return [first | {"content": content}, *messages[1:]]
    return [{"role": "system", "content": prompt}, *messages]
