"""The syntax of Mistral's tool calls: a JSON list after `[TOOL_CALLS]`; newer models write the name and the
arguments separately.

[TOOL_CALLS] [{"name": "lamp", "arguments": {"on": true}}]
[TOOL_CALLS]lamp[ARGS]{"on": true}
"""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Any

from edgeagent.engine.tool_syntax.json_text import JsonCalls
from edgeagent.engine.tool_syntax.plain import HEAD, object_rules
from edgeagent.engine.tool_syntax.tool_syntax import (
    CallOpening,
    Family,
    Function,
    Mark,
    find_marker,
    json_rule,
    quoted,
)

OPEN, ARGUMENTS, CALL_ID = "[TOOL_CALLS]", "[ARGS]", "[CALL_ID]"
_HEAD = re.compile(r"\[TOOL_CALLS\](?P<name>[^\[\s]+)(?:\[CALL_ID\][a-zA-Z0-9]*)?\[ARGS\]\s*(?=\{)")


class Mistral(Family):
    name = "mistral"
    markers = (OPEN,)

    def writes(self, sample: str) -> bool:
        return OPEN in sample and ARGUMENTS not in sample

    def find(self, text: str, names: Collection[str], *, is_first: bool) -> CallOpening | None:
        return find_marker(text, OPEN)

    def grammar(
        self,
        functions: list[Function],
        n_calls: int,
        mark: Mark,
        style: Any,
        *,
        is_mixed: bool = False,
    ) -> str:
        more = f' (", " call){{0,{n_calls - 1}}}' if n_calls > 1 else ""
        return (f'calls: {mark(OPEN)} " "? "[" call{more} "]"\n') + object_rules(
            functions, self.style, style
        )

    def reader(self) -> JsonCalls:
        return JsonCalls(HEAD)

    def call_text(self, name: str, arguments: dict[str, Any]) -> str:
        return f"{OPEN} [{self.style.dump({'name': name, 'arguments': arguments})}]"


class MistralArgs(Family):
    name = "mistral-args"
    markers = (OPEN, ARGUMENTS, CALL_ID)

    def writes(self, sample: str) -> bool:
        return OPEN in sample and ARGUMENTS in sample

    def find(self, text: str, names: Collection[str], *, is_first: bool) -> CallOpening | None:
        return find_marker(text, OPEN)

    def grammar(
        self,
        functions: list[Function],
        n_calls: int,
        mark: Mark,
        style: Any,
        *,
        is_mixed: bool = False,
    ) -> str:
        rules = [f"calls: call{{1,{n_calls}}}"]
        names = " | ".join(f"f{i}" for i in range(len(functions)))
        rules.append(f"call: {mark(OPEN)} ({names})")
        for i, function in enumerate(functions):
            rules.append(f"f{i}: {quoted(function.name)} {mark(ARGUMENTS)} a{i}")
            rules.append(f"a{i}: {json_rule(function.schema, style)}")
        return "\n".join(rules)

    def reader(self) -> JsonCalls:
        return JsonCalls(_HEAD)

    def call_text(self, name: str, arguments: dict[str, Any]) -> str:
        return f"{OPEN}{name}{ARGUMENTS}{self.style.dump(arguments)}"
