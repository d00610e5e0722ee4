"""The syntax of tool calls of FunctionGemma and Gemma 4, which have their own notation for arguments.

    <start_function_call>call:lamp{on:true,room:<escape>hall<escape>}<end_function_call>

Keys are unquoted and sorted; strings are enclosed in two markers. A value whose schema this notation cannot
enforce (a pattern, a reference) is written as JSON.
Source: ai.google.dev/gemma/docs/functiongemma/formatting-and-best-practices.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection
from typing import Any

from edgeagent.engine.tool_syntax.gemma_notation import Notation, NotationCalls
from edgeagent.engine.tool_syntax.tool_syntax import (
    CallOpening,
    Family,
    Function,
    Mark,
    find_marker,
    json_rule,
    quoted,
)

_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*")
_SAYS_NOTHING = frozenset({"title", "description", "default", "examples", "example", "$comment"})
_SCALARS = ("integer", "number", "boolean", "null")


class Gemma(Family):
    name = "functiongemma"
    notation = Notation("<start_function_call>", "<end_function_call>", "<escape>")
    markers = notation

    def writes(self, sample: str) -> bool:
        return f"{self.notation.opening}call:" in sample

    def find(self, text: str, names: Collection[str], *, is_first: bool) -> CallOpening | None:
        return find_marker(text, self.notation.opening)

    def grammar(
        self,
        functions: list[Function],
        n_calls: int,
        mark: Mark,
        style: Any,
        *,
        is_mixed: bool = False,
    ) -> str:
        rules = _Rules(mark(self.notation.quote), style)
        names = []
        for function in functions:
            arguments = rules.value(function.schema, function.schema)
            names.append(f"{quoted(function.name)} {arguments}")
        opening, closing = mark(self.notation.opening), mark(self.notation.closing)
        head = [
            f"calls: one{{1,{n_calls}}}",
            f'one: {opening} "call:" ({" | ".join(names)}) {closing}',
        ]
        return "\n".join(head + rules.lines)

    def reader(self) -> NotationCalls:
        return NotationCalls(self.notation)

    def call_text(self, name: str, arguments: dict[str, Any]) -> str:
        written = self._written(arguments)
        return f"{self.notation.opening}call:{name}{written}{self.notation.closing}"

    def _written(self, value: Any) -> str:
        if isinstance(value, str):
            return f"{self.notation.quote}{value}{self.notation.quote}"
        if isinstance(value, dict):
            pairs = sorted(value.items(), key=lambda pair: pair[0].lower())
            return "{" + ",".join(f"{k}:{self._written(v)}" for k, v in pairs) + "}"
        if isinstance(value, list):
            return "[" + ",".join(map(self._written, value)) + "]"
        return json.dumps(value)


class Gemma4(Gemma):
    name = "gemma4"
    notation = Notation("<|tool_call>", "<tool_call|>", '<|"|>')
    markers = notation


class _Rules:
    """Makes the Lark rules for values from their schemas."""

    def __init__(self, quote: str, style: Any) -> None:
        self.lines: list[str] = []
        self._quote = quote
        self._style = style

    def value(self, schema: Any, root: dict[str, Any]) -> str:
        """The name of the rule for the values that a schema allows."""
        return self._rule(self._body(schema, root))

    def _rule(self, body: str) -> str:
        name = f"v{len(self.lines)}"
        self.lines.append(f"{name}: {body}")
        return name

    def _body(self, schema: Any, root: dict[str, Any]) -> str:
        found = self._native(schema, root) if isinstance(schema, dict) else None
        if found is not None:
            return found
        definitions: dict[str, Any] = {
            key: root[key] for key in ("$defs", "definitions") if key in root
        }
        node = schema if isinstance(schema, dict) else {}
        return json_rule(definitions | node, self._style)

    def _native(self, schema: dict[str, Any], root: dict[str, Any]) -> str | None:
        """The rule in Gemma's notation; None if it cannot enforce the schema."""
        said = schema.keys() - _SAYS_NOTHING
        if "const" in schema or "enum" in schema:
            return self._choice(schema, said)
        if said == {"anyOf"} and schema["anyOf"]:
            return " | ".join(self.value(choice, root) for choice in schema["anyOf"])
        kind = schema.get("type")
        if isinstance(kind, list):
            return " | ".join(self.value(schema | {"type": one}, root) for one in kind)
        if kind in _SCALARS:
            return json_rule({key: schema[key] for key in said if _concerns(key)}, self._style)
        if kind == "string" and said <= {"type", "minLength", "maxLength"}:
            most = schema.get("maxLength", "")
            return f"{self._quote} /[^<]{{{schema.get('minLength', 0)},{most}}}/ {self._quote}"
        if kind == "array" and said <= {"type", "items", "minItems", "maxItems"}:
            return self._list(schema, root)
        if kind == "object":
            return self._object(schema, said, root)
        return None

    def _choice(self, schema: dict[str, Any], said: set[str]) -> str | None:
        values = [schema["const"]] if "const" in schema else schema["enum"]
        if not said <= {"type", "const", "enum"} or not ("const" in schema) ^ ("enum" in schema):
            return None
        if not all(isinstance(v, str | int | float | bool | None) for v in values):
            return None
        if any(isinstance(v, str) and ("<" in v or not v) for v in values):
            return None
        kind = schema.get("type")
        if kind is not None and not all(_is_of(value, kind) for value in values):
            return None
        return " | ".join(
            f"{self._quote} {quoted(value)} {self._quote}"
            if isinstance(value, str)
            else quoted(json.dumps(value))
            for value in values
        )

    def _list(self, schema: dict[str, Any], root: dict[str, Any]) -> str | None:
        least, most = schema.get("minItems", 0), schema.get("maxItems")
        if most is not None and most < least:
            return None  # llguidance reports the error
        item = self.value(schema.get("items", {}), root)
        if most == 0:
            return quoted("[]")
        more = f"{max(0, least - 1)},{most - 1 if most is not None else ''}"
        items = f'{item} ("," {item}){{{more}}}'
        return f'"[" {items} "]"' if least else f'"[" ({items})? "]"'

    def _object(self, schema: dict[str, Any], said: set[str], root: dict[str, Any]) -> str | None:
        properties = schema.get("properties", {})
        required = schema.get("required", [])
        if (
            not said <= {"type", "properties", "required", "additionalProperties", *_DEFINITIONS}
            or schema.get("additionalProperties") is not False
            or not all(_KEY.fullmatch(key) for key in properties)
            or not all(key in properties for key in required)
        ):
            return None
        after, first = self._rule('""'), None  # from the last property to the first
        first = after
        for key in sorted(properties, key=str.lower, reverse=True):
            pair = self._rule(f"{quoted(key + ':')} {self.value(properties[key], root)}")
            skip = key not in required
            first = self._rule(f"{pair} {after}" + (f" | {first}" if skip else ""))
            after = self._rule(f'"," {pair} {after}' + (f" | {after}" if skip else ""))
        return f'"{{" {first} "}}"'


_DEFINITIONS = ("$defs", "definitions", "$schema", "$id")


def _concerns(key: str) -> bool:
    """Whether a keyword applies to a number, a boolean or null."""
    return key in (
        "type", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf",
    )  # fmt: skip


def _is_of(value: Any, kind: Any) -> bool:
    kinds = kind if isinstance(kind, list) else [kind]
    own = {str: "string", bool: "boolean", int: "integer", float: "number", type(None): "null"}
    name = own.get(type(value))
    return name in kinds or (name == "integer" and "number" in kinds)
