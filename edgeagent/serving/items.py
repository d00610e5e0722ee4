"""Items of the stateful API: how they are shown and stored.

A stored item has an id of ours, whatever its sender called it: a client may send an item that it
received once more, and two equal texts are two items.
"""

from __future__ import annotations

import json
from typing import Any

from edgeagent.store.items import Item
from edgeagent.types.ids import ITEM_PREFIXES, new_id

Body = dict[str, Any]
# The type of an item that only names a stored one.
REFERENCE = "item_reference"


def text_of(parts: Any) -> str:
    """The text of an item's content or output: a string, or parts that are joined."""
    if isinstance(parts, str):
        return parts
    return "".join(part.get("text") or part.get("refusal") or "" for part in parts or [])


def is_object(arguments: str) -> bool:
    """Whether a text is a JSON object."""
    try:
        return isinstance(json.loads(arguments), dict)
    except (ValueError, RecursionError):
        return False


def output_text(text: str, logprobs: list[Body] | None = None) -> Body:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": logprobs or []}


def shown_message(role: str, content: list[Body], status: str = "completed") -> Body:
    return {
        "id": new_id(ITEM_PREFIXES["message"]),
        "type": "message",
        "role": role,
        "status": status,
        "content": content,
    }


# What the input of a call is named in an item of its type.
_INPUTS = {"function_call": "arguments", "custom_tool_call": "input"}


def shown_call(
    kind: str,
    call_id: str,
    name: str,
    value: str,
    status: str = "completed",
    namespace: str | None = None,
) -> Body:
    """A call with its JSON arguments, or with the text that a custom tool takes."""
    return {
        "id": new_id(ITEM_PREFIXES[kind]),
        "type": kind,
        "call_id": call_id,
        "name": name,
        _INPUTS[kind]: value,
        "status": status,
    } | ({"namespace": namespace} if namespace else {})


def shown_output(kind: str, call_id: str, output: Any) -> Body:
    """The result of a call, as text or parts of text."""
    if isinstance(output, list):
        output = [{"type": "input_text", "text": text_of([part])} for part in output]
    return {
        "id": new_id(ITEM_PREFIXES[kind]),
        "type": kind,
        "call_id": call_id,
        "output": output,
        "status": "completed",
    }


def shown_reasoning(text: str, status: str = "completed") -> Body:
    return {
        "id": new_id(ITEM_PREFIXES["reasoning"]),
        "type": "reasoning",
        "summary": [],
        "content": [{"type": "reasoning_text", "text": text}] if text else [],
        "status": status,
    }


def stored_item(body: Body, *, is_input: bool) -> Item:
    """An item as the store keeps it, with its text for search."""
    plain = {
        "message": lambda: text_of(body["content"]),
        "function_call": lambda: f"{body['name']} {body['arguments']}",
        "function_call_output": lambda: text_of(body["output"]),
        "custom_tool_call": lambda: f"{body['name']} {body['input']}",
        "custom_tool_call_output": lambda: text_of(body["output"]),
        "file_search_call": lambda: "\n".join(body["queries"]),
        "reasoning": lambda: text_of(body["content"]) + text_of(body["summary"]),
    }[body["type"]]()
    return Item(
        id=body["id"],
        kind=body["type"],
        role=body.get("role"),
        body=body,
        plain=plain,
        is_input=is_input,
    )
