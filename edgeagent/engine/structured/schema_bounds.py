"""Checks a JSON schema before anything is built from it: size limits, keywords, references.

Pure functions over plain values; no library receives a schema that has not passed `checked`. Runs in the
worker: the daemon only measures a schema's length.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from edgeagent.engine.structured.schema_examples import without_endless
from edgeagent.engine.structured.schema_repair import RepairNote
from edgeagent.engine.structured.schema_rewrite import HARMLESS, LISTS, MAPS, SINGLES, narrowed
from edgeagent.errors import InvalidParameter, UnsupportedParameter

PARAM = "response_format"
MAX_BYTES = 64 << 10
MAX_DEPTH = 64  # of JSON brackets: about 20 nested objects
MAX_PROPERTIES = 512
MAX_VALUES = 2000  # total over all enums
MAX_PATTERNS = 64
MAX_PATTERN_CHARS = 1000
# `(a{1000}){1000}` takes 0.8 s of the engine's time before llguidance gives up (EPYC Zen 5).
MAX_REPEATS = 5000

# Keywords of JSON Schema that restrict values and that llguidance cannot enforce.
UNSUPPORTED = frozenset({
    "not", "if", "then", "else", "contains", "minContains", "maxContains", "unevaluatedProperties",
    "unevaluatedItems", "propertyNames", "dependentRequired", "dependentSchemas", "dependencies",
    "$dynamicRef", "$recursiveRef", "x-guidance",
})  # fmt: skip
# The format "unknown" restricts nothing.
FORMATS = frozenset({
    "date-time", "time", "date", "duration", "email", "hostname", "ipv4", "ipv6", "uuid", "uri",
    "unknown",
})  # fmt: skip
DRAFTS = re.compile(
    r"https?://json-schema\.org/(draft-0[467]/schema|draft/(2019-09|2020-12)/schema)#?"
)
# Annotations. A reference with only these beside it means the schema that it refers to.
ANNOTATIONS = frozenset({
    "title", "description", "default", "examples", "example", "deprecated", "readOnly", "writeOnly",
    "$comment", "$schema", "$id", "id", "$defs", "definitions", "discriminator", "nullable",
})  # fmt: skip


@dataclass(frozen=True)
class BoundedSchema:
    """A schema within the limits. Token masks are made of `narrowed`.

    `is_plain` is true without intersections, which can take long to compile. If the client did not ask for
    strictness, `whole` is the schema as it was sent: answers are validated against it afterwards, but not
    constrained by it, and `notes` lists what `schema` lacks.
    """

    schema: dict[str, Any]
    narrowed: dict[str, Any]
    is_plain: bool
    whole: dict[str, Any] | None = None
    notes: tuple[RepairNote, ...] = ()


def checked(text: str) -> BoundedSchema:
    """The schema in a JSON text.

    Raises: InvalidParameter for a malformed or too large schema, UnsupportedParameter for a keyword that
    cannot be enforced; both name the keyword and its path.
    """
    schema = parsed(text)
    for node, path in _subschemas(schema, "#"):
        _check_keywords(node, path)
    return within_bounds(schema)


def parsed(text: str) -> dict[str, Any]:
    """The schema in a JSON text. Raises: InvalidParameter if it is too long or nested too deeply."""
    if len(text) > MAX_BYTES:
        raise InvalidParameter(
            f"The schema has {len(text)} bytes, the bound is {MAX_BYTES}: send a smaller one.",
            param=PARAM,
        )
    if _json_depth(text) > MAX_DEPTH:
        raise InvalidParameter(
            f"The schema is nested more than {MAX_DEPTH} levels deep: use `$defs` and `$ref`.",
            param=PARAM,
        )
    schema = json.loads(text)
    if not isinstance(schema, dict):
        raise InvalidParameter("The schema is no JSON object: send one.", param=PARAM)
    return schema


def within_bounds(schema: dict[str, Any]) -> BoundedSchema:
    """A valid schema that has only known keywords. Raises: InvalidParameter if it is too large."""
    nodes = list(_subschemas(schema, "#"))
    _check_sizes(nodes)
    is_plain = not any(_intersects(node) for node, _ in nodes)
    finite = without_endless(schema)
    return BoundedSchema(schema, narrowed(finite, is_closed=is_plain), is_plain)


def _json_depth(text: str) -> int:
    """The nesting depth of brackets outside strings, computed without recursion."""
    depth = deepest = 0
    for found in re.finditer(r'"(?:[^"\\]|\\.)*"|[\[{]|[\]}]', text):
        if found.group() in "[{":
            depth += 1
            deepest = max(deepest, depth)
        elif found.group() in "]}":
            depth -= 1
    return deepest


def _subschemas(root: Any, path: str) -> Iterator[tuple[dict[str, Any], str]]:
    """Every subschema with its path. Malformed parts are skipped; the meta-schema reports them."""
    stack = [(root, path)]
    while stack:
        node, path = stack.pop()
        if not isinstance(node, dict):
            continue
        yield node, path
        stack += reversed(list(_children(node, path)))


def _children(node: dict[str, Any], path: str) -> Iterator[tuple[Any, str]]:
    for key in MAPS:
        if isinstance(node.get(key), dict):
            for name, child in node[key].items():
                yield child, f"{path}/{key}/{_escaped(name)}"
    for key in (*LISTS, *SINGLES):
        value = node.get(key)
        if isinstance(value, list):
            yield from ((child, f"{path}/{key}/{i}") for i, child in enumerate(value))
        else:
            yield value, f"{path}/{key}"


def _escaped(name: str) -> str:
    return name.replace("~", "~0").replace("/", "~1")[:80]


def _check_keywords(node: dict[str, Any], path: str) -> None:
    for key in node:
        if key in UNSUPPORTED or (key in HARMLESS and node[key] is not HARMLESS[key]):
            hint = ' Write `"type": [..., "null"]`.' if key == "nullable" else ""
            raise UnsupportedParameter(
                f"The schema's keyword `{key}` at {path} cannot be enforced: leave it out.{hint}",
                param=PARAM,
            )
    reference = node.get("$ref")
    if isinstance(reference, str) and not reference.startswith("#"):
        raise UnsupportedParameter(
            f"The schema's `$ref` at {path} points to {reference[:80]!r}, and nothing is fetched: put "
            "the definition under `$defs` and point to `#/$defs/...`.",
            param=PARAM,
        )
    draft = node.get("$schema")
    if isinstance(draft, str) and not DRAFTS.fullmatch(draft):
        raise UnsupportedParameter(
            f"The schema's `$schema` at {path} is {draft[:80]!r}, drafts 4, 6, 7, 2019-09 and 2020-12 "
            "are known: leave it out.",
            param=PARAM,
        )
    kind, types = node.get("format"), node.get("type", "string")
    is_text = "string" in types if isinstance(types, list) else types == "string"
    if isinstance(kind, str) and is_text and kind not in FORMATS:
        raise UnsupportedParameter(
            f"The schema's `format` at {path} is {kind[:40]!r}, known are {', '.join(sorted(FORMATS))}: "
            "use one of them, or `pattern`.",
            param=PARAM,
        )


def _check_sizes(nodes: list[tuple[dict[str, Any], str]]) -> None:
    counts = {"properties": 0, "enum": 0, "pattern": 0}
    for node, path in nodes:
        counts["properties"] += _size(node.get("properties"))
        counts["enum"] += _size(node.get("enum"))
        patterns = [*_names(node.get("patternProperties")), node.get("pattern")]
        for pattern in patterns:
            if isinstance(pattern, str):
                counts["pattern"] += 1
                _check_pattern(pattern, path)
    bounds = {"properties": MAX_PROPERTIES, "enum": MAX_VALUES, "pattern": MAX_PATTERNS}
    for key, bound in bounds.items():
        if counts[key] > bound:
            raise InvalidParameter(
                f"The schema's `{key}` hold {counts[key]} entries in all, the bound is {bound}: send a "
                "smaller schema.",
                param=PARAM,
            )


def _names(value: Any) -> list[str]:
    return list(value) if isinstance(value, dict) else []


def _size(value: Any) -> int:
    return len(value) if isinstance(value, dict | list) else 0


def _check_pattern(pattern: str, path: str) -> None:
    if len(pattern) > MAX_PATTERN_CHARS:
        raise InvalidParameter(
            f"The schema's `pattern` at {path} has {len(pattern)} characters, the bound is "
            f"{MAX_PATTERN_CHARS}: shorten it.",
            param=PARAM,
        )
    if (n := repeats(pattern)) > MAX_REPEATS:
        raise InvalidParameter(
            f"The schema's `pattern` at {path} repeats {n} times where counted repetitions nest, the "
            f"bound is {MAX_REPEATS}: count less.",
            param=PARAM,
        )


_PATTERN_PART = re.compile(
    r"\\.|\[(?:\\.|[^\]\\])*\]|(?P<open>\()|(?P<close>\))"
    r"|\{(?P<low>\d+)(?P<range>,(?P<high>\d*))?\}|[\s\S]"
)


def repeats(pattern: str) -> int:
    """The largest number of copies that a pattern's counted repetitions make of one of its parts."""
    inner = [1]  # the largest number within each open group
    last = deepest = 1  # the number for the part just read
    for part in _PATTERN_PART.finditer(pattern):
        if part["open"]:
            inner.append(1)
            last = 1
        elif part["close"] and len(inner) > 1:
            last = inner.pop()
            inner[-1] = max(inner[-1], last)
        elif part["low"]:
            last *= max(1, int(part["low"][:9]), int((part["high"] or "0")[:9]))
            inner[-1] = max(inner[-1], last)
        else:
            last = 1
        deepest = max(deepest, last)
    return deepest


def _intersects(node: dict[str, Any]) -> bool:
    """Whether several schemas apply to one value: by `allOf`, or beside a reference or a choice."""
    choices = [key for key in ("$ref", "anyOf", "oneOf", "allOf") if key in node]
    if not choices:
        return len(_names(node.get("patternProperties"))) > 1
    if len(choices) > 1 or ("allOf" in node and _size(node["allOf"]) > 1):
        return True
    return not (node.keys() - set(choices)) <= ANNOTATIONS


def first_path(checked: BoundedSchema, keyword: str) -> str:
    """The path of the first occurrence of a keyword."""
    return next((path for node, path in _subschemas(checked.schema, "#") if keyword in node), "#")


# By the words in llguidance's messages, the most specific first.
_NAMED = {
    "patternProperty": "patternProperties", "maxProperties": "maxProperties",
    "minProperties": "minProperties", "min/maxProperties": "minProperties",
    "multipleOf": "multipleOf", "Pointer": "$ref", "$ref": "$ref", "enum": "enum",
    "required": "required", "format": "format", "regex": "pattern", "lexer error": "pattern",
    "type": "type",
}  # fmt: skip


def guilty_keyword(complaint: str) -> str | None:
    """The keyword that an error message of llguidance is about, if it can be told."""
    return next((keyword for name, keyword in _NAMED.items() if name in complaint), None)
