"""From the items of the stateful API to the messages that a chat template reads."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from edgeagent.api.http.tool_offer import arguments_of, full_name
from edgeagent.api.openai.schemas.items import Body, text_of

Message = dict[str, Any]


def messages_of(items: Iterable[Body], instructions: str | None = None) -> list[Message]:
    """Messages as `/v1/chat/completions` takes them. Pure.

    What a model made in one turn becomes one message again: its reasoning, its text, its calls. The
    instructions and system messages that follow them at once are one message: many templates take one
    only, and at the beginning only.
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
    """A call as the model that made it knows it."""
    is_custom = item["type"] == "custom_tool_call"
    return {
        "id": item["call_id"],
        "type": "function",
        "function": {
            "name": full_name(item.get("namespace"), item["name"]),
            "arguments": arguments_of(item["input"]) if is_custom else item["arguments"],
        },
    }
