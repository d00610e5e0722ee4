"""The syntax of tool calls of Llama 3: `{"name": "lamp", "parameters": {"on": true}}`, one per answer,
sometimes after `<|python_tag|>`."""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Any

from edgeagent.engine.tool_syntax.json_text import JsonCalls, find_object
from edgeagent.engine.tool_syntax.plain import object_rules
from edgeagent.engine.tool_syntax.tool_syntax import (
    CallOpening,
    Family,
    Function,
    Mark,
    find_marker,
)

TAG = "<|python_tag|>"
_HEAD = re.compile(
    r'\{\s*"name"\s*:\s*"(?P<name>(?:[^"\\]|\\.)*)"\s*,\s*"parameters"\s*:\s*(?=\{)', re.DOTALL
)


class Llama3(Family):
    name = "llama3"
    markers = (TAG,)
    max_calls = 1  # its template refuses a history with several calls

    def writes(self, sample: str) -> bool:
        return "<|start_header_id|>" in sample and '"parameters"' in sample

    def find(self, text: str, names: Collection[str], *, is_first: bool) -> CallOpening | None:
        # The tag announces a call and does not belong to it.
        tag = find_marker(text, TAG, head="")
        found = find_object(text, names, is_first=is_first, key=self.style.key)
        places = [place for place in (tag, found) if place is not None]
        return min(places, key=lambda place: place.start, default=None)

    def grammar(
        self,
        functions: list[Function],
        n_calls: int,
        mark: Mark,
        style: Any,
        *,
        is_mixed: bool = False,
    ) -> str:
        return "calls: call\n" + object_rules(functions, self.style, style, "parameters")

    def reader(self) -> JsonCalls:
        return JsonCalls(_HEAD)

    def call_text(self, name: str, arguments: dict[str, Any]) -> str:
        return self.style.dump({"name": name, "parameters": arguments})
