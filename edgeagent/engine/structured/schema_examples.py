"""Short examples of values that a schema allows: the least length of its values, and texts that match its
formats and patterns.

They are only hints for completing an answer: the result is tried on the grammar itself.
Pure functions over plain values.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from fractions import Fraction
from re import _constants as codes  # type: ignore[attr-defined]
from re import _parser as parser  # type: ignore[attr-defined]
from typing import Any

from edgeagent.engine.structured.schema_repair import resolved
from edgeagent.engine.structured.schema_rewrite import LISTS, MAPS, SINGLES

# Longer ones are useless: they have to fit into the rest of an answer.
MAX_EXAMPLE = 400
MAX_EXAMPLES = 64
_CATEGORIES = {
    codes.CATEGORY_DIGIT: "0", codes.CATEGORY_WORD: "a", codes.CATEGORY_SPACE: " ",
    codes.CATEGORY_NOT_DIGIT: "a", codes.CATEGORY_NOT_WORD: "-", codes.CATEGORY_NOT_SPACE: "a",
}  # fmt: skip
_FORMATS = {
    "date": "2000-01-01",
    "time": "00:00:00Z",
    "date-time": "2000-01-01T00:00:00Z",
    "duration": "P1D",
    "email": "a@a.a",
    "hostname": "a",
    "ipv4": "0.0.0.0",
    "ipv6": "::",
    "uri": "a:",
    "uuid": "00000000-0000-0000-0000-000000000000",
}
_ALPHABET = "a0 -A_.:/" + "".join(map(chr, range(33, 127)))


def examples(schema: dict[str, Any]) -> list[str]:
    """A short matching text for each format and each pattern of a schema that can be parsed."""
    found: dict[str, None] = {}
    for name in _formats(schema):
        if text := _FORMATS.get(name):
            found[text] = None
    for pattern in _patterns(schema):
        if len(found) < MAX_EXAMPLES and (text := example(pattern)):
            found[text] = None
    return list(found)


def example(pattern: str) -> str | None:
    """A short text that a pattern matches, usually the shortest; None if the pattern cannot be parsed."""
    try:
        text = _shortest(parser.parse(pattern.replace(r"\z", r"\Z")))
    except (re.error, RecursionError, OverflowError, ValueError):
        return None
    return text if text is not None and len(text) <= MAX_EXAMPLE else None


def _formats(node: Any) -> Iterator[str]:
    if not isinstance(node, dict):
        return
    if isinstance(node.get("format"), str):
        yield node["format"]
    for child in _children(node):
        yield from _formats(child)


def _patterns(node: Any) -> Iterator[str]:
    if not isinstance(node, dict):
        return
    if isinstance(node.get("pattern"), str):
        yield node["pattern"]
    yield from node.get("patternProperties") or ()
    for child in _children(node):
        yield from _patterns(child)


def _children(node: dict[str, Any]) -> Iterator[Any]:
    for key in MAPS:
        yield from (node.get(key) or {}).values()
    for key in (*LISTS, *SINGLES):
        value = node.get(key)
        yield from value if isinstance(value, list) else [value]


def _shortest(tree: Any) -> str | None:
    """None if a part of the pattern is not supported."""
    parts = [_part(code, value) for code, value in tree]
    text = ""
    for part in parts:
        if part is None or len(text) + len(part) > MAX_EXAMPLE:
            return None
        text += part
    return text


def _part(code: Any, value: Any) -> str | None:
    if code is codes.LITERAL:
        return chr(value)
    if code is codes.NOT_LITERAL:
        return next(c for c in _ALPHABET if ord(c) != value)
    if code is codes.ANY:
        return "a"
    if code is codes.AT:
        return ""
    if code is codes.IN:
        return _member(value)
    if code in (codes.MAX_REPEAT, codes.MIN_REPEAT, codes.POSSESSIVE_REPEAT):
        least, _, inner = value
        one = _shortest(inner) if least else ""
        return None if one is None or least * len(one) > MAX_EXAMPLE else least * one
    if code is codes.SUBPATTERN:
        return _shortest(value[-1])
    if code is codes.ATOMIC_GROUP:
        return _shortest(value)
    if code is codes.BRANCH:
        found = [text for choice in value[1] if (text := _shortest(choice)) is not None]
        return min(found, key=len, default=None)
    return None


def _member(items: list[Any]) -> str | None:
    """A character that belongs to a class."""
    if items[0][0] is codes.NEGATE:
        return next((c for c in _ALPHABET if not _has(items[1:], c)), None)
    code, value = items[0]
    if code is codes.LITERAL:
        return chr(value)
    if code is codes.RANGE:
        return chr(value[0])
    return _CATEGORIES.get(value) if code is codes.CATEGORY else None


def _has(items: list[Any], character: str) -> bool:
    at = ord(character)
    for code, value in items:
        if code is codes.LITERAL and at == value:
            return True
        if code is codes.RANGE and value[0] <= at <= value[1]:
            return True
        if code is codes.CATEGORY and re.match(_CLASSES[value], character):
            return True
    return False


_CLASSES = {
    codes.CATEGORY_DIGIT: r"\d", codes.CATEGORY_WORD: r"\w", codes.CATEGORY_SPACE: r"\s",
    codes.CATEGORY_NOT_DIGIT: r"\D", codes.CATEGORY_NOT_WORD: r"\W", codes.CATEGORY_NOT_SPACE: r"\S",
}  # fmt: skip


# --- lengths

MAX_ROUNDS = 64
UNKNOWN = 16.0
TEXT_WITH_A_FORM = 24  # a date with a time, a UUID, a pattern


def most_to_close(schema: dict[str, Any]) -> int:
    """The number of bytes that one more value may require: the largest minimum length of any part of a
    schema, including its name."""
    lengths = _Lengths(schema)
    found = [lengths.of(node) for node in _nodes(schema)]
    return int(max([n for n in found if n < math.inf], default=0)) + 8


def _nodes(node: Any) -> Iterator[Any]:
    if isinstance(node, dict):
        yield node
        for child in _children(node):
            yield from _nodes(child)


def without_endless(schema: dict[str, Any]) -> dict[str, Any]:
    """A schema without the properties and choices that no value can satisfy, usually because they contain
    themselves. A grammar would let an answer begin such a value, which could never end."""
    try:
        lengths = _Lengths(schema)
    except (TypeError, AttributeError, ValueError, OverflowError):
        # Malformed, where the meta-schema reports it, or with a number of more than 308 digits.
        return schema
    if all(lengths.of(node) < math.inf for node in _nodes(schema)):
        return schema
    found: dict[str, Any] = _pruned(schema, lengths)
    return found


def _pruned(node: Any, lengths: _Lengths) -> Any:
    if not isinstance(node, dict):
        return node
    out = dict(node)
    for key in MAPS:
        if isinstance(node.get(key), dict):
            is_named = key in ("properties", "patternProperties")
            out[key] = {
                name: False
                if is_named and lengths.of(child) == math.inf
                else _pruned(child, lengths)
                for name, child in node[key].items()
            }
    for key in (*LISTS, *SINGLES):
        value = node.get(key)
        if isinstance(value, list):
            fits = [child for child in value if lengths.of(child) < math.inf]
            kept = fits if fits and key in ("anyOf", "oneOf") else value
            out[key] = [_pruned(child, lengths) for child in kept]
        elif isinstance(value, dict):
            is_endless = lengths.of(value) == math.inf
            out[key] = False if is_endless else _pruned(value, lengths)
    return out


class _Lengths:
    """The minimum length in bytes of the values of each part of a schema; infinite if there is no value."""

    def __init__(self, root: dict[str, Any]) -> None:
        self._root = root
        nodes = list(_nodes(root))
        self._known: dict[int, float] = {id(node): math.inf for node in nodes}
        has_changed, n_rounds = True, 0
        while has_changed and n_rounds < MAX_ROUNDS:
            has_changed, n_rounds = False, n_rounds + 1
            for node in reversed(nodes):  # the parts come first
                length = self._worked_out(node)
                has_changed |= length < self._known[id(node)]
                self._known[id(node)] = length
        if has_changed:  # too deep to be determined
            self._known = {key: min(n, UNKNOWN) for key, n in self._known.items()}

    def of(self, node: Any) -> float:
        if not isinstance(node, dict):
            return math.inf if node is False else 1
        return self._known.get(id(node), UNKNOWN)

    def _worked_out(self, node: dict[str, Any]) -> float:
        if "const" in node:
            return float(len(json.dumps(node["const"])))
        if node.get("enum"):
            return float(min(len(json.dumps(value)) for value in node["enum"]))
        least = 0.0
        if "$ref" in node:
            least = self.of(resolved(self._root, node["$ref"]))
        for key in ("anyOf", "oneOf"):
            if node.get(key):
                least = max(least, min(map(self.of, node[key])))
        least = max([least, *map(self.of, node.get("allOf", ()))])
        kinds = node.get("type", [])
        kinds = kinds if isinstance(kinds, list) else [kinds]
        if (
            kinds
            and set(kinds) <= {"integer", "number"}
            and (_is_crossed(node) or all(_has_no_step(kind, node) for kind in kinds))
        ):
            return math.inf
        return max(least, min((self._kind(kind, node) for kind in kinds), default=1))

    def _array(self, node: dict[str, Any]) -> float:
        first = [*map(self.of, node.get("prefixItems", ()))]
        n = node.get("minItems", 0)
        rest = max(0, n - len(first))
        others = rest * (1 + self.of(node.get("items", {}))) if rest else 0
        return 2 + sum(1 + length for length in first[:n]) + others

    def _kind(self, kind: str, node: dict[str, Any]) -> float:
        match kind:
            case "string":
                has_form = "pattern" in node or "format" in node
                return float(2 + node.get("minLength", 0) + TEXT_WITH_A_FORM * has_form)
            case "array":
                return self._array(node)
            case "object":
                named = node.get("properties", {})
                needed = node.get("required", [])
                return 2 + sum(4 + len(name) + self.of(named.get(name)) for name in needed)
        return 4 if kind in ("boolean", "null") else 8


def _is_crossed(node: dict[str, Any]) -> bool:
    """Whether the bounds exclude every number."""
    lows = (node.get("minimum", -math.inf), node.get("exclusiveMinimum", -math.inf))
    highs = (node.get("maximum", math.inf), node.get("exclusiveMaximum", math.inf))
    if any(isinstance(n, bool) for n in (*lows, *highs)):
        return False  # flags of draft 4
    return bool(max(lows) > min(highs) or lows[1] >= min(highs) or max(lows) >= highs[1])


def _has_no_step(kind: str, node: dict[str, Any]) -> bool:
    """Whether no integer, or no multiple of `multipleOf`, lies within the bounds."""
    names = ("minimum", "exclusiveMinimum", "maximum", "exclusiveMaximum", "multipleOf")
    given = {name: node[name] for name in names if name in node}
    if any(isinstance(n, bool) or not math.isfinite(n) for n in given.values()):
        return False  # flags of draft 4
    # As decimals, as JSON writes them.
    exact = {name: Fraction(str(n)) for name, n in given.items()}
    step = exact.get("multipleOf", Fraction(1 if kind == "integer" else 0))
    if step <= 0:
        return False
    if kind == "integer":
        step = Fraction(step.numerator)  # the least multiple that is whole
    lows = [math.ceil(exact["minimum"] / step)] if "minimum" in exact else []
    if "exclusiveMinimum" in exact:
        lows.append(math.floor(exact["exclusiveMinimum"] / step) + 1)
    highs = [math.floor(exact["maximum"] / step)] if "maximum" in exact else []
    if "exclusiveMaximum" in exact:
        highs.append(math.ceil(exact["exclusiveMaximum"] / step) - 1)
    return bool(lows and highs and max(lows) > min(highs))
