"""Arguments for a client's tool, in the form of its schema.

Arguments that the schema does not have are dropped where that is safe, and values are converted to the type
of the schema.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from edgeagent.types.tools import Tool

# These narrow a target that other arguments already determine.
_DISPENSABLE = frozenset({"domain", "floor"})
_PARTS_OF_A_DURATION = frozenset({"hours", "minutes", "seconds"})


class ArgumentMismatch(ValueError):
    """The arguments do not fit the schema of the tool."""


def arguments_for(
    tool: Tool, values: Mapping[str, Any], optional: Collection[str] = ()
) -> dict[str, Any]:
    """`values` as arguments of a tool. Raises: ArgumentMismatch."""
    properties = tool.parameters.get("properties")
    if not isinstance(properties, Mapping):
        if tool.parameters.get("additionalProperties") is False:
            properties = {}
        else:
            return dict(values)
    found: dict[str, Any] = {}
    for name, value in values.items():
        if name in properties:
            found[name] = fitted(value, properties[name])
        elif not (
            name in _DISPENSABLE or name in optional or (name == "area" and "name" in values)
        ):
            raise ArgumentMismatch(name)
    return _completed(found, tool.parameters.get("required"), properties)


def _completed(
    found: dict[str, Any], required: Any, properties: Mapping[str, Any]
) -> dict[str, Any]:
    """The arguments with what is required and says nothing. Raises: ArgumentMismatch."""
    for name in required if isinstance(required, list) else ():
        if name in found:
            continue
        if _takes(properties.get(name), "null"):
            found[name] = None
        elif name in _PARTS_OF_A_DURATION and found.keys() & _PARTS_OF_A_DURATION:
            found[name] = 0
        else:
            raise ArgumentMismatch(name)
    return found


def _takes(schema: Any, kind: str) -> bool:
    if not isinstance(schema, Mapping):
        return False
    kinds = schema.get("type")
    return kind in (kinds if isinstance(kinds, list) else [kinds]) or any(
        _takes(other, kind) for other in _others(schema)
    )


def _others(schema: Mapping[str, Any]) -> list[Any]:
    return [
        other
        for key in ("anyOf", "oneOf")
        if isinstance(schema.get(key), list)
        for other in schema[key]
    ]


def fitted(value: Any, schema: Any) -> Any:
    """`value` in the type that a schema has. Raises: ArgumentMismatch."""
    if not isinstance(schema, Mapping):
        return value
    if others := _others(schema):
        for other in others:
            try:
                return fitted(value, other)
            except ArgumentMismatch:
                continue
        raise ArgumentMismatch(value)
    kinds = schema.get("type")
    for kind in kinds if isinstance(kinds, list) else [kinds]:
        try:
            return _within(_typed(value, str(kind).lower() if kind else None, schema), schema)
        except ArgumentMismatch:
            continue
    raise ArgumentMismatch(value)


def _typed(value: Any, kind: str | None, schema: Mapping[str, Any]) -> Any:
    if kind == "array":
        items = value if isinstance(value, list) else [value]
        return [fitted(item, schema.get("items")) for item in items]
    if isinstance(value, list):
        if kind is None:
            return value
        if len(value) == 1:
            return _typed(value[0], kind, schema)
        raise ArgumentMismatch(value)
    if kind in ("integer", "number") and isinstance(value, int | float):
        if float(value).is_integer():
            return int(value)
        if kind == "number":
            return value
    elif kind == "string":
        return value if isinstance(value, str) else f"{value:g}"
    elif kind is None:
        return int(value) if isinstance(value, float) and value.is_integer() else value
    raise ArgumentMismatch(value)


def _within(value: Any, schema: Mapping[str, Any]) -> Any:
    allowed = schema.get("enum")
    if isinstance(allowed, list) and value not in allowed and not isinstance(value, list):
        alike = [one for one in allowed if str(one).casefold() == str(value).casefold()]
        if not alike:
            raise ArgumentMismatch(value)
        return alike[0]
    if isinstance(value, int | float):
        low, high = schema.get("minimum"), schema.get("maximum")
        is_low = isinstance(low, int | float) and value < low
        if is_low or (isinstance(high, int | float) and value > high):
            raise ArgumentMismatch(value)
    return value
