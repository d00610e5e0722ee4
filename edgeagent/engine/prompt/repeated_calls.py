"""Ends a loop of calls: a model that makes the same call again and again answers in words."""

from __future__ import annotations

import json
from typing import Any

import msgspec

from edgeagent.engine.prompt.template_abilities import Message
from edgeagent.types.generation import GenerateSpec


def without_looping_tools(spec: GenerateSpec) -> GenerateSpec:
    """The request without its tools, if the model may choose to call and its last two calls were the same and
    have their results: a third call would add nothing. A call that the client requires is still made."""
    use = spec.tools
    if use is None or use.choice != "auto":
        return spec
    if not any(is_looping(prompt.messages or []) for prompt in spec.prompts):
        return spec
    return msgspec.structs.replace(spec, tools=None)


def is_looping(messages: list[Message]) -> bool:
    """Whether a dialogue ends with two rounds of the same calls, each with its results."""
    rounds: list[list[str]] = []
    rest = list(messages)
    while len(rounds) < 2:
        n_results = 0
        while rest and rest[-1]["role"] == "tool":
            rest.pop()
            n_results += 1
        calls = rest.pop().get("tool_calls") if rest else None
        if not calls or n_results < len(calls):
            return False
        rounds.append(sorted(map(_call, calls)))
    return rounds[0] == rounds[1]


def _call(call: dict[str, Any]) -> str:
    """A call as text, the same for the same arguments however they are written."""
    function = call["function"]
    try:
        arguments = json.dumps(json.loads(function["arguments"] or "{}"), sort_keys=True)
    except (ValueError, RecursionError):
        arguments = function["arguments"]
    return f"{function['name']} {arguments}"
