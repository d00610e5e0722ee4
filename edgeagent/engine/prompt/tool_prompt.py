"""Adapts a dialogue with tools to a template: what the template cannot show is put into words."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from edgeagent.engine.prompt.past_calls import in_words, is_about_calls, native
from edgeagent.engine.prompt.template_abilities import Message, TemplateAbilities, described
from edgeagent.engine.prompt.turn_merging import adapted
from edgeagent.engine.tool_syntax.tool_syntax import Family
from edgeagent.types.tools import Tool, ToolUse

# Put after the last result for models that were not trained to call: without it SmolLM2-135M repeated the
# call in 7 of 8 dialogues.
ANSWER_NOW = "\n\nSay in words what this result means for my question."


def variables(
    messages: list[Message], use: ToolUse | None, abilities: TemplateAbilities
) -> dict[str, Any]:
    """The messages and, if the template can show them, the tools that it gets."""
    had_result = bool(messages) and messages[-1]["role"] == "tool"
    if any(map(is_about_calls, messages)):
        if abilities.has_calls:
            messages = native(messages, abilities)
        else:
            messages = in_words(messages, abilities.family)
    if use is None:
        return {"messages": adapted(messages, abilities)}
    tools = [tool for tool in use.tools if use.name is None or tool.name == use.name]
    if abilities.has_tools:
        return {
            "messages": adapted(messages, abilities),
            "tools": [described(tool) for tool in tools],
        }
    if had_result and use.choice == "auto":
        messages = [
            *messages[:-1],
            messages[-1] | {"content": messages[-1]["content"] + ANSWER_NOW},
        ]
    prompt = tool_prompt(tools, use, abilities.family)
    return {"messages": adapted(_with_system(messages, prompt), abilities)}


def plainest(abilities: TemplateAbilities) -> TemplateAbilities:
    """The messages with users and assistants in turn and nothing else, for a template that has refused the
    dialogue as it was."""
    return replace(
        abilities,
        has_calls=False,
        has_system=False,
        has_late_system=False,
        has_neighbours=False,
        may_open=False,
    )


def tool_prompt(tools: list[Tool], use: ToolUse, family: Family) -> str:
    """The instruction for a model that was not trained to call. It is short, for small models."""
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


def _with_system(messages: list[Message], prompt: str) -> list[Message]:
    """The messages with the instruction at the end of the first system message, which may be new."""
    first = messages[0]
    if first["role"] == "system":
        return [first | {"content": f"{first['content']}\n\n{prompt}"}, *messages[1:]]
    return [{"role": "system", "content": prompt}, *messages]
