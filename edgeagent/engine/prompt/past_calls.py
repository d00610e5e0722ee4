"""Puts past calls and their results into the form that a template expects, or into words."""

from __future__ import annotations

import json

from edgeagent.engine.prompt.template_abilities import Message, TemplateAbilities
from edgeagent.engine.tool_syntax.tool_syntax import Family


def is_about_calls(message: Message) -> bool:
    return message["role"] == "tool" or bool(message.get("tool_calls"))


def native(messages: list[Message], abilities: TemplateAbilities) -> list[Message]:
    """The messages as a template with calls expects them."""
    messages = [_native(message, messages, abilities) for message in messages]
    if not abilities.shows_call_text:
        messages = [part for message in messages for part in _apart(message)]
    return _one_by_one(messages) if abilities.family.max_calls == 1 else messages


def _apart(message: Message) -> list[Message]:
    """The text of a message with calls as a message of its own before them."""
    if not message.get("tool_calls") or not message.get("content"):
        return [message]
    said = {name: value for name, value in message.items() if name != "tool_calls"}
    return [said, message | {"content": ""}]


def _native(message: Message, messages: list[Message], abilities: TemplateAbilities) -> Message:
    """A message as a template with calls expects it: arguments as values, results with names."""
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
    """Nine characters of a call's id: Mistral's templates require that, and others accept it."""
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


def in_words(messages: list[Message], family: Family) -> list[Message]:
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
        # Many templates require that users and assistants take turns.
        if out and told["role"] == out[-1]["role"] == "user":
            out[-1] = out[-1] | {"content": f"{out[-1]['content']}\n\n{told['content']}"}
        else:
            out.append(told)
    return out
