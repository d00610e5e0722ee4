"""Finds the part of a schema that can be enforced, when the client did not ask for `strict`.

    sent -> repaired (valid; answers are checked against it) -> loosened (token masks are made of it)

What cannot be enforced is left out and noted. If llguidance still refuses the rest, `weakened` leaves out
more until it accepts. Pure functions over plain values; only `attempt` calls the library.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

from edgeagent.engine.structured import schema_bounds as schemas
from edgeagent.engine.structured.schema_repair import RepairNote, escaped, repaired
from edgeagent.engine.structured.schema_rewrite import (
    LISTS,
    MAPS,
    SINGLES,
    is_exclusive,
    without_patterns,
)

MAX_NOTES = 64
# Keywords to leave out one after the other, before everything but the structure is.
MAX_ROUNDS = 6
# The structure, which stays when everything else has to go.
CORE = frozenset({
    "type", "enum", "const", "properties", "required", "items", "prefixItems", "anyOf", "$ref", "$defs",
    "definitions", "additionalProperties",
})  # fmt: skip

# A time of day as in RFC 3339, or without the offset, which Home Assistant requires.
TIME = r"^([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](\.[0-9]{1,6})?(Z|[+-]([01][0-9]|2[0-3]):[0-5][0-9])?$"

# Compiles a schema: returns the error message, empty for a schema that can be enforced.
Attempt = Callable[[schemas.BoundedSchema], str]


class Relaxation(NamedTuple):
    """Answers are constrained by `enforced`, and validated against `whole` afterwards."""

    enforced: dict[str, Any]
    whole: dict[str, Any]
    notes: list[RepairNote]


def checked_loosely(schema: dict[str, Any]) -> schemas.BoundedSchema:
    """A schema within the limits; what cannot be enforced is left out and noted.

    Raises: InvalidParameter if it is too large.
    """
    return made(loosened(schema))


def made(found: Relaxation) -> schemas.BoundedSchema:
    """The schema that token masks are made of. Raises: InvalidParameter."""
    bound = schemas.within_bounds(found.enforced)
    return dataclasses.replace(bound, whole=found.whole, notes=tuple(found.notes[:MAX_NOTES]))


def weaker(found: schemas.BoundedSchema, attempt: Attempt) -> schemas.BoundedSchema:
    """The same schema without what `attempt` refuses. A strict one is returned unchanged."""
    if found.whole is None or not attempt(found):
        return found
    schema, notes = weakened(found.schema, attempt)
    return made(Relaxation(schema, found.whole, [*found.notes, *notes]))


def loosened(schema: dict[str, Any]) -> Relaxation:
    """A schema that can be enforced, and notes of what was left out."""
    whole, notes = repaired(schema)
    loosen = _Relaxer(whole)
    enforced = loosen.node(whole, "#")
    assert isinstance(enforced, dict), "a repaired schema is an object"
    return Relaxation(enforced, loosen.checkable(), notes + loosen.notes)


class _Relaxer:
    """The relaxation of one schema; counts what is limited over the whole schema."""

    def __init__(self, root: dict[str, Any]) -> None:
        self.notes: list[RepairNote] = []
        self._root = root
        self._n_values = 0
        self._n_patterns = 0
        self._unreadable: set[str] = set()

    def checkable(self) -> dict[str, Any]:
        """The whole schema, without patterns that are too large for any library."""
        return without_patterns(self._root, self._unreadable) if self._unreadable else self._root

    def _note(self, path: str, keyword: str, note: str) -> None:
        self.notes.append(RepairNote(path, keyword, note))

    def node(self, node: Any, path: str) -> Any:
        if not isinstance(node, dict):
            return node
        out: dict[str, Any] = {}
        for key, value in node.items():
            if not self._is_dropped(node, key, value, path):
                out[key] = self._inner(key, value, path)
        if out.get("format") == "time" and "pattern" not in out:
            del out["format"]
            out["pattern"] = TIME
            self._note(
                path, "format", "'time' is enforced without its offset, which may stand there"
            )
        self._choose(out, path)
        return out

    def _inner(self, key: str, value: Any, path: str) -> Any:
        where = f"{path}/{key}"
        if key == "patternProperties":
            fits = {n: v for n, v in value.items() if self._may_hold(n, where, key)}
            return {n: self.node(v, f"{where}/{escaped(n)}") for n, v in fits.items()}
        if key in MAPS:
            return {n: self.node(v, f"{where}/{escaped(n)}") for n, v in value.items()}
        if key in LISTS:
            return [self.node(item, f"{where}/{i}") for i, item in enumerate(value)]
        return self.node(value, where) if key in SINGLES else value

    def _is_dropped(self, node: dict[str, Any], key: str, value: Any, path: str) -> bool:
        if key in schemas.UNSUPPORTED:
            if key != "propertyNames" or value not in ({}, True, {"type": "string"}):
                self._note(path, key, "is checked afterwards, not enforced")
            return True
        if key == "uniqueItems":
            if value:
                self._note(path, key, "is checked afterwards, not enforced")
            return True
        if key == "format":
            return self._is_unknown_format(node, value, path)
        if key == "pattern":
            return not self._may_hold(value, path, key)
        if key == "enum":
            self._n_values += len(value)
            if self._n_values > schemas.MAX_VALUES:
                self._note(path, key, f"more than {schemas.MAX_VALUES} values are not enforced")
                return True
        if key in ("minProperties", "maxProperties"):
            return self._is_uncountable(node, key, path)
        return False

    def _is_unknown_format(self, node: dict[str, Any], kind: str, path: str) -> bool:
        types = node.get("type", "string")
        if "string" not in (types if isinstance(types, list) else [types]):
            return True  # `int32` and the like do not apply to a string
        if kind in schemas.FORMATS:
            return False
        self._note(path, "format", f"{kind[:40]!r} is not known: any text passes")
        return True

    def _may_hold(self, pattern: str, path: str, key: str) -> bool:
        """Whether a pattern is within the limits for patterns."""
        self._n_patterns += 1
        is_large = len(pattern) > schemas.MAX_PATTERN_CHARS
        if is_large or schemas.repeats(pattern) > schemas.MAX_REPEATS:
            self._unreadable.add(pattern)
            self._note(path, key, "the pattern is too large to be enforced or checked")
            return False
        if self._n_patterns > schemas.MAX_PATTERNS:
            self._note(path, key, f"more than {schemas.MAX_PATTERNS} patterns are not enforced")
            return False
        return True

    def _is_uncountable(self, node: dict[str, Any], key: str, path: str) -> bool:
        named = node.get("properties", {})
        if set(named) <= set(node.get("required", [])) and "patternProperties" not in node:
            return False
        if key == "minProperties" and node[key] <= len(node.get("required", [])):
            return True  # that many are required
        self._note(path, key, "is checked afterwards, not enforced")
        return True

    def _choose(self, out: dict[str, Any], path: str) -> None:
        """Rewrite `oneOf` as `anyOf` if several choices may fit one value."""
        if "oneOf" not in out or is_exclusive(out["oneOf"], self._root):
            return
        choices = out.pop("oneOf")
        self._note(path, "oneOf", "one of the choices is enforced, that no other fits is not")
        if "anyOf" not in out:
            out["anyOf"] = choices


# --- schemas that llguidance still refuses


def weakened(schema: dict[str, Any], attempt: Attempt) -> tuple[dict[str, Any], list[RepairNote]]:
    """A schema that can be enforced, made from one that `attempt` refused.

    Leaves out first the patterns that are refused on their own, then the keywords that the messages name,
    then everything but the structure, and finally everything but the type.
    """
    notes: list[RepairNote] = []
    schema = _filtered(schema, "#", notes, _pattern_fault(attempt))
    complaint = _said(schema, attempt)
    for _ in range(MAX_ROUNDS):
        keyword = schemas.guilty_keyword(complaint) if complaint else None
        if keyword is None or keyword in CORE:
            break
        schema = _filtered(schema, "#", notes, _fault_of(keyword))
        complaint = _said(schema, attempt)
    if complaint:
        schema = _filtered(schema, "#", notes, _beyond_core)
        complaint = _said(schema, attempt)
    if complaint:
        brief = " ".join(complaint.replace("<non-verbose/>", "").split())[:200]
        notes.append(RepairNote("#", "", f"only the type is enforced: {brief}"))
        kind = schema.get("type")
        schema = {"type": kind} if kind is not None else {}
    return schema, notes


# The reason for leaving a keyword out; None if it stays.
Fault = Callable[[dict[str, Any], str], str | None]


def _said(schema: dict[str, Any], attempt: Attempt) -> str:
    return attempt(schemas.within_bounds(schema))


def _pattern_fault(attempt: Attempt) -> Fault:
    known: dict[str, str] = {}

    def complaint(pattern: str) -> str:
        if pattern not in known:
            known[pattern] = _said({"type": "string", "pattern": pattern}, attempt)
        return known[pattern]

    def fault(node: dict[str, Any], key: str) -> str | None:
        patterns = {"pattern": [node.get(key)], "patternProperties": node.get(key)}.get(key) or ()
        said = next(filter(None, map(complaint, patterns)), "")
        brief = " ".join(said.rpartition("error: ")[2].split())[:120]
        return f"is not enforced: {brief}" if said else None

    return fault


def _fault_of(keyword: str) -> Fault:
    return lambda node, key: "is checked afterwards, not enforced" if key == keyword else None


def _beyond_core(node: dict[str, Any], key: str) -> str | None:
    # A reference or a choice must stand alone, so that no schemas intersect.
    alone = next((name for name in ("$ref", "anyOf") if name in node), None)
    if "properties" in node:
        is_beside = key in ("$ref", "anyOf")
    else:
        is_beside = alone is not None and key not in (alone, "$defs", "definitions")
    return "is checked afterwards, not enforced" if key not in CORE or is_beside else None


def _filtered(node: Any, path: str, notes: list[RepairNote], fault: Fault) -> Any:
    if not isinstance(node, dict):
        return node
    out: dict[str, Any] = {}
    for key, value in node.items():
        if (why := fault(node, key)) is not None:
            notes.append(RepairNote(path, key, why))
            continue
        where = f"{path}/{key}"
        if key in MAPS:
            out[key] = {
                n: _filtered(v, f"{where}/{escaped(n)}", notes, fault) for n, v in value.items()
            }
        elif key in LISTS:
            out[key] = [_filtered(v, f"{where}/{i}", notes, fault) for i, v in enumerate(value)]
        else:
            out[key] = _filtered(value, where, notes, fault) if key in SINGLES else value
    return out
