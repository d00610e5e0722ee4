"""The syntax of tool calls of Hermes and Qwen: JSON between `<tool_call>` and `</tool_call>`."""

from __future__ import annotations

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
)

OPEN, CLOSE = "<tool_call>", "</tool_call>"


class Hermes(Family):
    name = "hermes"
    markers = (OPEN, CLOSE)

    def writes(self, sample: str) -> bool:
        # Qwen3-Coder and GLM use the same markers around another syntax.
        others = ("<function=", "<arg_key>")
        return OPEN in sample and not any(other in sample for other in others)

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
        more = f' ("\\n" one){{0,{n_calls - 1}}}' if n_calls > 1 else ""
        return (
            f'calls: one{more}\none: {mark(OPEN)} "\\n" call "\\n" {mark(CLOSE)}\n'
        ) + object_rules(functions, self.style, style)

    def reader(self) -> JsonCalls:
        return JsonCalls(HEAD)

    def call_text(self, name: str, arguments: dict[str, Any]) -> str:
        called = self.style.dump({"name": name, "arguments": arguments})
        return f"{OPEN}\n{called}\n{CLOSE}"
