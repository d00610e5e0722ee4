"""A call as a plain JSON object, one a line: `{"name":"lamp","arguments":{"on":true}}`.

The syntax for models that were not trained to call, and the one of some small models.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Any

from edgeagent.engine.tool_syntax.json_text import JsonCalls, find_object
from edgeagent.engine.tool_syntax.tool_syntax import (
    CallOpening,
    Family,
    Function,
    JsonStyle,
    Mark,
    json_rule,
    quoted,
)

HEAD = re.compile(
    r'\{\s*"name"\s*:\s*"(?P<name>(?:[^"\\]|\\.)*)"\s*,\s*"arguments"\s*:\s*(?=\{)', re.DOTALL
)


class Plain(Family):
    name = "plain"
    style = JsonStyle(",", ":")

    def writes(self, sample: str) -> bool:
        return bool(re.search(r'"name"\s*:.*"arguments"\s*:', sample, re.DOTALL))

    def find(self, text: str, names: Collection[str], *, is_first: bool) -> CallOpening | None:
        return find_object(text, names, is_first=is_first, key=self.style.key)

    def grammar(
        self,
        functions: list[Function],
        n_calls: int,
        mark: Mark,
        style: Any,
        *,
        is_mixed: bool = False,
    ) -> str:
        more = f' ("\\n" call){{0,{n_calls - 1}}}' if n_calls > 1 else ""
        return f"calls: call{more}\n" + object_rules(
            functions, self.style, style, is_mixed=is_mixed
        )

    def reader(self) -> JsonCalls:
        return JsonCalls(HEAD)

    def call_text(self, name: str, arguments: dict[str, Any]) -> str:
        return self.style.dump({"name": name, "arguments": arguments})


def object_rules(
    functions: list[Function],
    written: JsonStyle,
    style: Any,
    arguments: str = "arguments",
    *,
    is_mixed: bool = False,
) -> str:
    """The rule `call`: an object with the name of a function, and arguments by its schema.

    The names stand together behind what all calls begin with, so that it is forced. Where other JSON
    may begin as well it is all JSON: llguidance takes the longest literal that may come, and would not
    see the other.
    """
    names = " | ".join(f"f{i}" for i in range(len(functions)))
    if is_mixed:
        choices = [json_rule(_object_of(function, arguments), style) for function in functions]
        rules = [f"f{i}: {choice}" for i, choice in enumerate(choices)]
        return "\n".join([f"call: {names}", *rules])
    opening = quoted('{"name"' + written.key + '"')
    rules = [f"call: {opening} ({names}) {quoted('}')}"]
    for i, function in enumerate(functions):
        head = f'{function.name}"{written.item}"{arguments}"{written.key}'
        rules.append(f"f{i}: {quoted(head)} a{i}")
        rules.append(f"a{i}: {json_rule(function.schema, style)}")
    return "\n".join(rules)


def _object_of(function: Function, arguments: str) -> dict[str, Any]:
    """The schema of a whole call."""
    inner = dict(function.schema)
    definitions: dict[str, Any] = {
        key: inner.pop(key) for key in ("$defs", "definitions") if key in inner
    }
    whole: dict[str, Any] = {
        "type": "object",
        "properties": {"name": {"const": function.name}, arguments: inner},
        "required": ["name", arguments],
        "additionalProperties": False,
    }
    whole |= definitions
    moved: dict[str, Any] = _moved(whole, f"#/properties/{arguments}")
    return moved


def _moved(node: Any, place: str) -> Any:
    """A schema whose root has moved to a place within another; its definitions stay at the root."""
    if isinstance(node, list):
        return [_moved(item, place) for item in node]
    if not isinstance(node, dict):
        return node
    out = {key: _moved(value, place) for key, value in node.items()}
    target = out.get("$ref")
    if isinstance(target, str) and not target.startswith(("#/$defs/", "#/definitions/")):
        out["$ref"] = place + target.removeprefix("#")
    return out
