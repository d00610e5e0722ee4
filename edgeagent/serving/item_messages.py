"""Converts items of the stateful API to the messages that a chat template reads."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from edgeagent.serving.items import Body, text_of
from edgeagent.serving.tool_offer import arguments_of, full_name

Message = dict[str, Any]


def messages_of(items: Iterable[Body], instructions: str | None = None) -> list[Message]:
    """Messages in the form of `/v1/chat/completions`. Pure.

    Reasoning, text and calls that a model made in one turn become one message again. Instructions and the
    system messages right after them become one message, because many templates accept only one, at the
    beginning.
    """
    found: list[Message] = []
    if instructions:
        found.append({"role": "system", "content": instructions})
    reasoning = ""
    for item in items:
        last = found[-1] if found else None
        match item["type"]:
            case "message":
                role = "system" if item["role"] == "developer" else item["role"]
                text = text_of(item["content"])
                if role == "system" and len(found) == 1 and last and last["role"] == "system":
                    last["content"] += f"\n\n{text}"
                    continue
                message: Message = {"role": role, "content": text}
                if role == "assistant" and reasoning:
                    message["reasoning_content"] = reasoning
                reasoning = ""
                found.append(message)
            case "reasoning":
                reasoning += text_of(item.get("content")) or text_of(item.get("summary"))
            case "function_call" | "custom_tool_call":
                if last is None or last["role"] != "assistant":
                    last = {"role": "assistant", "content": ""}
                    if reasoning:
                        last["reasoning_content"] = reasoning
                    reasoning = ""
                    found.append(last)
                last.setdefault("tool_calls", []).append(_call(item))
            case "function_call_output" | "custom_tool_call_output":
                found.append(
                    {
                        "role": "tool",
                        "tool_call_id": item["call_id"],
                        "content": text_of(item["output"]),
                    }
                )
    return found


def _call(item: Body) -> Message:
    """A call under the name that the model knows."""
    is_custom = item["type"] == "custom_tool_call"
    return {
        "id": item["call_id"],
        "type": "function",
        "function": {
            "name": full_name(item.get("namespace"), item["name"]),
            "arguments": arguments_of(item["input"]) if is_custom else item["arguments"],
        },
    }
