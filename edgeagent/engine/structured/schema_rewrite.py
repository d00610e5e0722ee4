"""Rewrites a schema into the one that token masks are made of, which is equally strict or stricter.

Keywords without an effect are removed, `oneOf` becomes `anyOf` where its choices exclude each other, and
objects are closed. Pure functions over plain values.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Collection
from typing import Any, TypeGuard

MAPS = ("properties", "patternProperties", "$defs", "definitions")
LISTS = ("prefixItems", "anyOf", "oneOf", "allOf")
SINGLES = ("items", "additionalProperties", "additionalItems")
# Keywords that no mask can be made of.
CONDITIONS = ("not", "if", "then", "else", "contains", "propertyNames")
# With these values the keywords have no effect, but llguidance would refuse them.
HARMLESS: dict[str, object] = {"uniqueItems": False, "nullable": False}
LARGEST_BELOW_ZERO = -1e-6
MAX_HOPS = 16  # references in a chain


def narrowed(schema: dict[str, Any], *, is_closed: bool) -> dict[str, Any]:
    """The schema for token masks.

    With `is_closed`, an object that lists its properties without `additionalProperties` allows no others: the
    answer stays valid, and a small model does not go on inventing keys. Schemas that intersect are not
    closed, because closing one would forbid what another requires.
    """
    found: dict[str, Any] = _narrowed(schema, schema, is_closed)
    return found


def _narrowed(value: Any, root: Any, is_closed: bool) -> Any:
    if isinstance(value, list):
        return [_narrowed(item, root, is_closed) for item in value]
    if not isinstance(value, dict):
        return value
    node = dict(value)
    for key in MAPS:
        if isinstance(node.get(key), dict):
            node[key] = {k: _narrowed(v, root, is_closed) for k, v in node[key].items()}
    for key in (*LISTS, *SINGLES):
        if key in node:
            node[key] = _narrowed(node[key], root, is_closed)
    for key in HARMLESS:
        node.pop(key, None)
    _keep_below_zero(node)
    if "oneOf" in node and "anyOf" not in node and is_exclusive(node["oneOf"], root):
        node["anyOf"] = node.pop("oneOf")
    if is_closed and _may_close(node):
        node["additionalProperties"] = False
    return node


def _keep_below_zero(node: dict[str, Any]) -> None:
    """Exclude -0, which llguidance treats as less than 0."""
    bound = node.get("exclusiveMaximum")
    is_flag = bound is True and _is_zero(node.get("maximum"))  # draft 4
    if not is_flag and not _is_zero(bound):
        return
    lows = [node.get("minimum"), node.get("exclusiveMinimum")]
    low = max((n for n in lows if _is_number(n)), default=-1)
    if low >= 0:
        return  # no number satisfies this
    is_whole = node.get("type") == "integer"
    most = -1 if is_whole else max(LARGEST_BELOW_ZERO, low / 2)
    highest = node.get("maximum")
    node["maximum"] = min(most, highest) if _is_number(highest) else most
    del node["exclusiveMaximum"]


def _is_number(value: Any) -> TypeGuard[int | float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_zero(value: Any) -> bool:
    return _is_number(value) and bool(value == 0)


def _may_close(node: dict[str, Any]) -> bool:
    named = node.get("properties")
    required = node.get("required", [])
    return (
        isinstance(named, dict)
        and bool(named)
        and not node.keys() & {"additionalProperties", "patternProperties", "minProperties"}
        and _is_names(required)  # malformed; the meta-schema reports it
        and named.keys() >= set(required)
    )


def without_patterns(node: Any, patterns: Collection[str] | None = None) -> Any:
    """A schema without the given patterns, or without any pattern."""
    if isinstance(node, list):
        return [without_patterns(item, patterns) for item in node]
    if not isinstance(node, dict):
        return node

    def is_out(pattern: Any) -> bool:
        return isinstance(pattern, str) and (patterns is None or pattern in patterns)

    out = {key: node[key] for key in node if key != "pattern" or not is_out(node[key])}
    for key in out.keys() & {*MAPS}:
        if isinstance(out[key], dict):
            named = out[key].items()
            is_map = key != "patternProperties"
            out[key] = {
                n: without_patterns(v, patterns) for n, v in named if is_map or not is_out(n)
            }
    for key in out.keys() & {*LISTS, *SINGLES, *CONDITIONS}:
        out[key] = without_patterns(out[key], patterns)
    return out


def is_exclusive(choices: Any, root: Any) -> bool:
    """Whether no value fits two of the choices, so that `oneOf` equals `anyOf`: judged by their types, or by
    the constants of a property in each choice."""
    if not isinstance(choices, list):
        return False
    nodes = [_resolved(choice, root) for choice in choices]
    return all(_differ(a, b, root) for a, b in itertools.combinations(nodes, 2))


def _differ(a: Any, b: Any, root: Any) -> bool:
    if not isinstance(a, dict) or not isinstance(b, dict):
        return False
    types_a, types_b = _types(a), _types(b)
    if types_a and types_b and not types_a & types_b:
        return True
    if types_a != {"object"} or types_b != {"object"}:
        return False
    shared = set(_required(a)) & set(_required(b))
    return any(
        (values_a := _values(a, name, root)) is not None
        and (values_b := _values(b, name, root)) is not None
        and not values_a & values_b
        for name in shared
    )


def _resolved(node: Any, root: Any) -> Any:
    for _ in range(MAX_HOPS):
        reference = node.get("$ref") if isinstance(node, dict) else None
        if not isinstance(reference, str) or not reference.startswith("#/"):
            return node
        node = root
        for part in reference[2:].split("/"):
            name = part.replace("~1", "/").replace("~0", "~")
            node = node.get(name) if isinstance(node, dict) else None
    return None


def _types(node: dict[str, Any]) -> set[str]:
    kind = node.get("type")
    names = {kind} if isinstance(kind, str) else set(kind or ()) if _is_names(kind) else set()
    # An integer is also a number.
    return names | {"integer"} if "number" in names else names


def _is_names(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


def _required(node: dict[str, Any]) -> list[str]:
    names = node.get("required")
    return list(names) if isinstance(names, list) and _is_names(names) else []


def _values(node: dict[str, Any], name: str, root: Any) -> set[str] | None:
    """The values that a property may have, as JSON; None if their number is not limited."""
    properties = node.get("properties")
    child = _resolved(properties.get(name), root) if isinstance(properties, dict) else None
    if not isinstance(child, dict):
        return None
    values = [child["const"]] if "const" in child else child.get("enum")
    if not isinstance(values, list):
        return None
    # 1 and 1.0 are the same value; llguidance handles what is not a string.
    return {json.dumps(v) for v in values} if all(isinstance(v, str) for v in values) else None
