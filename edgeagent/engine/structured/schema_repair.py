"""Turns the invalid JSON schemas that some clients send into valid ones.

MCP servers, Home Assistant, the dialects of Gemini and OpenAPI, and old drafts write types in upper case,
null for a missing value, `nullable`, lists of `items`, numbers as strings. `repaired` expresses the same in
draft 2020-12. It leaves out annotations, and whatever it cannot interpret, which it notes.
Pure functions over plain values.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

TYPES = frozenset({"string", "number", "integer", "boolean", "null", "object", "array"})
# Names of types in Gemini, BFCL, Python and TypeScript.
SYNONYMS = {
    "str": "string", "text": "string", "int": "integer", "int32": "integer", "int64": "integer",
    "long": "integer", "float": "number", "double": "number", "decimal": "number", "bool": "boolean",
    "dict": "object", "map": "object", "list": "array", "tuple": "array", "none": "null",
}  # fmt: skip
ANY_TYPE = frozenset({"any", "unknown", "type_unspecified", "mixed", ""})

_MAPS = ("properties", "patternProperties", "$defs", "definitions", "dependentSchemas")
_LISTS = ("allOf", "anyOf", "oneOf", "prefixItems")
_SINGLES = (
    "additionalProperties", "additionalItems", "not", "if", "then", "else", "contains", "propertyNames",
    "unevaluatedProperties", "unevaluatedItems",
)  # fmt: skip
_COUNTS = (
    "minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties", "minContains",
    "maxContains",
)  # fmt: skip
_NUMBERS = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf")
_TEXTS = ("pattern", "format", "$ref")
_UNFOLLOWED = ("$dynamicRef", "$recursiveRef")
_EXCLUSIVE = {"exclusiveMinimum": "minimum", "exclusiveMaximum": "maximum"}
MAX_HOPS = 32


class RepairNote(NamedTuple):
    """A part of a schema that is not enforced: the keyword, its path, and the reason."""

    path: str
    keyword: str
    note: str


def repaired(schema: Any) -> tuple[dict[str, Any], list[RepairNote]]:
    """A valid schema with the same meaning, as far as that can be determined. `schema` may be nested up to
    `MAX_DEPTH` (schema_bounds.py)."""
    repair = _Repair()
    found = repair.node(schema, "#")
    root = found if isinstance(found, dict) else ({} if found else {"not": {}})
    repair.references(root)
    return root, repair.notes


def escaped(name: str) -> str:
    """A name as a part of a JSON pointer, shortened if it is long."""
    return name.replace("~", "~0").replace("/", "~1")[:80]


class _Repair:
    """The repair of one schema."""

    def __init__(self) -> None:
        self.notes: list[RepairNote] = []
        self._references: list[tuple[dict[str, Any], str]] = []

    def note(self, path: str, keyword: str, note: str) -> None:
        self.notes.append(RepairNote(path, keyword, note))

    def node(self, node: Any, path: str) -> dict[str, Any] | bool:
        if isinstance(node, bool):
            return node
        if not isinstance(node, dict):
            if node is not None:
                self.note(path, "", f"{_shown(node)} is not a schema: any value passes")
            return {}
        out: dict[str, Any] = {}
        for key, value in node.items():
            # Clients send null for a missing value; only in `const` does it mean null.
            if value is None and key != "const":
                continue
            # Flags of drafts 3 and 4, which are handled together with the keyword that they modify.
            if isinstance(value, bool) and key in ("required", *_EXCLUSIVE):
                continue
            self._keyword(out, key, value, path)
        self._together(out, node, path)
        return out

    def _keyword(self, out: dict[str, Any], key: str, value: Any, path: str) -> None:
        if key == "const":
            out[key] = value
        elif key in _MAPS:
            if isinstance(value, dict):
                out[key] = self._map(key, value, f"{path}/{key}")
            else:
                self._misfit(path, key, value)
        elif key in _LISTS:
            self._list(out, key, value, path)
        elif key == "items" and isinstance(value, list):
            self._list(out, "prefixItems", value, path, said="items")
        elif key == "items" or key in _SINGLES:
            out[key] = self.node(value, f"{path}/{key}")
        elif key in _UNFOLLOWED:
            self.note(path, key, "is not followed")
        elif (read := _READERS.get(key)) is not None:
            found = read(value)
            if found is None:
                self._misfit(path, key, value)
            else:
                out[key] = found
        elif key == "type":
            self._type(out, value, path)
        elif key == "dependencies":
            self._dependencies(out, value, path)

    def _map(self, key: str, value: dict[str, Any], path: str) -> dict[str, Any]:
        name = translated if key == "patternProperties" else str
        return {name(n): self.node(v, f"{path}/{escaped(n)}") for n, v in value.items()}

    def _misfit(self, path: str, key: str, value: Any) -> None:
        self.note(path, key, f"the value {_shown(value)} is not valid here and is ignored")

    def _list(
        self, out: dict[str, Any], key: str, value: Any, path: str, said: str | None = None
    ) -> None:
        said = said or key
        if isinstance(value, list) and value:
            out[key] = [self.node(item, f"{path}/{said}/{i}") for i, item in enumerate(value)]
        else:
            self._misfit(path, said, value)

    def _type(self, out: dict[str, Any], value: Any, path: str) -> None:
        names = value if isinstance(value, list) else [value]
        known: list[str] = []
        for name in names:
            plain = name.strip().lower() if isinstance(name, str) else None
            if plain in ANY_TYPE:
                return
            plain = SYNONYMS.get(plain or "", plain)
            if plain not in TYPES:
                self.note(path, "type", f"{_shown(name)} is not a type: any value passes")
                return
            if plain not in known:
                known.append(plain)
        if known:
            out["type"] = known[0] if len(known) == 1 else known

    def _dependencies(self, out: dict[str, Any], value: Any, path: str) -> None:
        """`dependencies` of drafts 4 to 7: names or a schema."""
        if not isinstance(value, dict):
            self._misfit(path, "dependencies", value)
            return
        for name, wanted in value.items():
            if isinstance(wanted, list):
                names = _names(wanted) or []
                out.setdefault("dependentRequired", {})[name] = names
            else:
                where = f"{path}/dependencies/{escaped(name)}"
                out.setdefault("dependentSchemas", {})[name] = self.node(wanted, where)

    # --- keywords that depend on each other

    def _together(self, out: dict[str, Any], node: dict[str, Any], path: str) -> None:
        if isinstance(node.get("items"), list) and "additionalItems" in out:
            out["items"] = out["additionalItems"]  # a tuple of drafts 4 to 7
        out.pop("additionalItems", None)
        for flag, bound in _EXCLUSIVE.items():
            if node.get(flag) is True and bound in out:  # draft 4
                out[flag] = out.pop(bound)
        self._values(out, path)
        inner = _or_null(out) if node.get("nullable") is True else out
        if "$ref" in inner:
            self._references.append((inner, path))

    def _values(self, out: dict[str, Any], path: str) -> None:
        """Remove a type that contradicts the listed values: the values are more specific."""
        if "type" not in out or not ("enum" in out or "const" in out):
            return
        values = [out["const"]] if "const" in out else out["enum"]
        kinds = out["type"] if isinstance(out["type"], list) else [out["type"]]
        if not any(is_of(value, kind) for value in values for kind in kinds):
            self.note(path, "type", "none of the values has this type: it is ignored")
            del out["type"]

    # --- references

    def references(self, root: dict[str, Any]) -> None:
        """Leave out references without a target, and cyclic chains of references."""
        for node, path in self._references:
            target = node["$ref"]
            moved = re.sub(r"/items/(\d+)", r"/prefixItems/\1", target)
            if moved != target and is_schema(resolved(root, moved)):
                node["$ref"] = target = moved
            if not is_schema(resolved(root, target)):
                why = "is not fetched" if not target.startswith("#") else "leads nowhere"
                self.note(path, "$ref", f"{_shown(target)} {why}: any value passes")
                del node["$ref"]
        for node, path in self._references:
            if "$ref" in node and _is_circle(root, node):
                self.note(path, "$ref", "leads round in a circle: any value passes")
                del node["$ref"]


def resolved(root: Any, pointer: str) -> Any:
    """The target of a reference within a schema; None if there is none."""
    if pointer == "#":
        return root
    if not pointer.startswith("#/"):
        return None
    node = root
    for part in pointer[2:].split("/"):
        name = part.replace("~1", "/").replace("~0", "~")
        if isinstance(node, dict):
            node = node.get(name)
        elif isinstance(node, list) and name.isdecimal() and int(name[:9]) < len(node):
            node = node[int(name[:9])]
        else:
            return None
    return node


def is_schema(value: Any) -> bool:
    return isinstance(value, dict | bool)


def _is_circle(root: dict[str, Any], node: dict[str, Any]) -> bool:
    at: Any = node
    for _ in range(MAX_HOPS):
        if not isinstance(at, dict) or "$ref" not in at:
            return False
        at = resolved(root, at["$ref"])
        if at is node:
            return True
    return True


def _or_null(out: dict[str, Any]) -> dict[str, Any]:
    """Allow null as well. Returns the schema of the value that is not null."""
    rest = {key: value for key, value in out.items() if key not in ("$defs", "definitions")}
    if "const" in out or any(key in out for key in ("$ref", "anyOf", "oneOf", "allOf", "not")):
        for key in rest:
            del out[key]
        out["anyOf"] = [rest, {"type": "null"}]
        return rest
    if "enum" in out and None not in out["enum"]:
        out["enum"] = [*out["enum"], None]
    if "type" in out:
        kinds = out["type"] if isinstance(out["type"], list) else [out["type"]]
        out["type"] = kinds if "null" in kinds else [*kinds, "null"]
    return out


def is_of(value: Any, kind: str) -> bool:
    """Whether a value has a type of JSON Schema."""
    match kind:
        case "null":
            return value is None
        case "boolean":
            return isinstance(value, bool)
        case "string":
            return isinstance(value, str)
        case "array":
            return isinstance(value, list)
        case "object":
            return isinstance(value, dict)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return kind == "number" or isinstance(value, int) or value.is_integer()


def _shown(value: Any) -> str:
    try:
        return json.dumps(value, ensure_ascii=True)[:60]
    except (TypeError, ValueError, RecursionError):
        return type(value).__name__


# --- the values of single keywords; None for an invalid one


def _number(value: Any) -> int | float | None:
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError:
            return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    # A bound beyond the range of a float does not restrict a number that clients can parse.
    return value if -sys.float_info.max <= value <= sys.float_info.max else None


def _count(value: Any) -> int | None:
    found = _number(value)
    return int(found) if found is not None and found >= 0 and found == int(found) else None


def _multiple(value: Any) -> int | float | None:
    found = _number(value)
    return found if found is not None and found > 0 else None


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def _names(value: Any) -> list[str] | None:
    if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
        return None
    return list(dict.fromkeys(value))


def _choices(value: Any) -> list[Any] | None:
    if not isinstance(value, list) or not value:
        return None
    return list({json.dumps(_plain(item), sort_keys=True): item for item in value}.values())


def _plain(value: Any) -> Any:
    """The integer if a number is whole: 1.0 and 1 are the same value."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _needed(value: Any) -> dict[str, list[str]] | None:
    if not isinstance(value, dict):
        return None
    return {name: found for name, wanted in value.items() if (found := _names(wanted)) is not None}


def _flag(value: Any) -> bool | None:
    return value if isinstance(value, bool) else None


def _pattern(value: Any) -> str | None:
    return translated(value) if isinstance(value, str) else None


_READERS: dict[str, Callable[[Any], Any]] = {
    **dict.fromkeys(_COUNTS, _count),
    **dict.fromkeys(_NUMBERS, _number),
    **dict.fromkeys(_TEXTS, _text),
    "multipleOf": _multiple,
    "pattern": _pattern,
    "required": _names,
    "enum": _choices,
    "dependentRequired": _needed,
    "uniqueItems": _flag,
}

_PART = re.compile(r"\\.|\[\^?\]?(?:\\.|[^\]\\])*\]|\(\?>|\?\+|[\s\S]")
_SAME = {r"\Z": r"\z", r"\A": "^", "(?>": "(?:", "?+": "?"}


def translated(pattern: str) -> str:
    """A pattern in which the syntax of other dialects is replaced: anchors of a text, and possessive
    repetitions."""
    return "".join(_SAME.get(part, part) for part in _PART.findall(pattern))
