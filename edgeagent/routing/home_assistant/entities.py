"""The devices of a home, from the list in a client's system prompt.

Home Assistant's list ("Static Context: ...") has one mapping for each device:

    - names: Kitchen Light, Big light
      domain: light
      areas: Kitchen

An older format has the entity id above each mapping (`light.kitchen:`); custom integrations write CSV with
a header (`entity_id,name,state,aliases`) or lines (`light.kitchen 'Kitchen Light' = off`). Other text is
skipped. Only devices in the list exist.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

MAX_CHARACTERS = 400_000
MAX_ENTITIES = 2_000
_FIELD = re.compile(r"^(\s*)(- )?\s*['\"]?([A-Za-z_]+)['\"]?:(?:\s+(.*\S))?\s*$")
_ID = re.compile(r"^\s*(?:- )?['\"]?([a-z_]+)\.([a-z0-9_]+)['\"]?:\s*$")
_LINE = re.compile(r"^\s*(?:- )?([a-z_]+)\.([a-z0-9_]+)\s+['\"]([^'\"]+)['\"]")
_KEYS = {
    "names": "names", "name": "names", "friendly_name": "names", "alias": "aliases", "aliases": "aliases",
    "domain": "domain", "areas": "areas", "area": "areas", "area_name": "areas", "floor": "floor",
    "entity_id": "entity_id", "state": "state", "device_class": "device_class", "id": "entity_id",
    "current_temperature": "current_temperature", "temperature": "temperature", "humidity": "humidity",
    "unit_of_measurement": "unit", "brightness": "brightness", "current_position": "position",
    "percentage": "percentage", "volume_level": "volume", "attributes": "attributes",
}  # fmt: skip

DETAILS = (
    "unit", "current_temperature", "temperature", "humidity", "brightness", "position", "percentage",
    "volume",
)  # fmt: skip


@dataclass(frozen=True)
class Entity:
    """One device. The first of `names` is its own name, the first of `areas` its own area; lists with
    states give `state` and `details`, for example its temperature."""

    names: tuple[str, ...]
    domain: str
    areas: tuple[str, ...] = ()
    floor: str | None = None
    device_class: str | None = None
    state: str | None = None
    details: tuple[tuple[str, str], ...] = ()

    @property
    def name(self) -> str:
        return self.names[0]

    @property
    def area(self) -> str | None:
        return self.areas[0] if self.areas else None


def listed(messages: Iterable[Mapping[str, Any]]) -> list[Entity]:
    """The devices that the system's messages list; those of users and of tools are not read."""
    found: list[Entity] = []
    for message in messages:
        if message.get("role") in ("system", "developer"):
            found += entities_in(str(message.get("content") or ""))
    return list(dict.fromkeys(found))[:MAX_ENTITIES]


def entities_in(text: str) -> list[Entity]:
    """The devices in one text."""
    lines = text[:MAX_CHARACTERS].splitlines()
    found = [entity for fields in _records(lines) if (entity := _entity(fields)) is not None]
    found += [Entity((line[3].strip(),), line[1]) for text in lines if (line := _LINE.match(text))]
    return [*found, *_tabulated(lines)]


def _records(lines: Sequence[str]) -> Iterator[dict[str, str]]:
    """The mappings of a list or of a mapping by id; a value goes on in lines that are indented deeper."""
    fields: dict[str, str] = {}
    key, depth, skipped = "", -1, -1
    for line in lines:
        if heading := _ID.match(line):
            yield fields
            fields = {"entity_id": f"{heading[1]}.{heading[2]}", "domain": heading[1]}
            key, depth = "", -1
            continue
        field = _FIELD.match(line)
        indent = len(line) - len(line.lstrip())
        if field and field[3].lower() in _KEYS and not (skipped >= 0 and indent > skipped):
            if field[2]:
                yield fields
                fields = {}
            key = _KEYS[field[3].lower()]
            depth, skipped = len(field[1]) + len(field[2] or ""), -1
            if key in fields and key != "aliases":  # a new mapping without a dash
                yield fields
                fields = {}
            fields[key] = field[4] or ""
        elif field and not (key and indent > depth):
            key, skipped = "", indent  # `attributes:` and its values
        elif key and line.strip() and indent > depth:
            fields[key] += " " + line.strip()
        elif not line.strip() or indent <= depth:
            key = ""
    yield fields


def _tabulated(lines: Sequence[str]) -> Iterator[Entity]:
    head: list[str] | None = None
    for line in lines:
        cells = [cell.strip() for cell in next(csv.reader([line]), [])]
        if {"entity_id", "name"} <= set(cells):
            head = cells
        elif head is not None and len(cells) >= 2 and "." in cells[head.index("entity_id")]:
            row = {_KEYS[k]: v for k, v in zip(head, cells, strict=False) if k in _KEYS}
            row["aliases"] = row.get("aliases", "").replace("/", ",")
            if (entity := _entity(row)) is not None:
                yield entity
        else:
            head = None


def _entity(fields: Mapping[str, str]) -> Entity | None:
    names = [*_names(fields.get("names", "")), *_names(fields.get("aliases", ""))]
    domain = _plain(fields.get("domain", "")) or _plain(fields.get("entity_id", "")).split(".")[0]
    if not names or not re.fullmatch(r"[a-z_]+", domain):
        return None
    return Entity(
        tuple(dict.fromkeys(names)),
        domain,
        tuple(_names(fields.get("areas", ""))),
        _plain(fields.get("floor", "")) or None,
        _plain(fields.get("device_class", "")) or None,
        _plain(fields.get("state", "")) or None,
        tuple((key, _plain(fields[key])) for key in DETAILS if fields.get(key)),
    )


def _names(value: str) -> list[str]:
    return [name for part in _plain(value).strip("[]").split(",") if (name := _plain(part))]


def _plain(value: str) -> str:
    """A scalar without its quotes."""
    value = value.strip()
    if len(value) >= 2 and value[0] == value[-1] and value[0] in "'\"":
        return value[1:-1].replace("''", "'") if value[0] == "'" else _unescaped(value[1:-1])
    return value


def _unescaped(text: str) -> str:
    """The escapes of a double-quoted scalar that names are likely to have."""
    text = re.sub(r"\\x([0-9A-Fa-f]{2})|\\u([0-9A-Fa-f]{4})", _character, text)
    return text.replace('\\"', '"').replace("\\\\", "\\")


def _character(found: re.Match[str]) -> str:
    return chr(int(found[1] or found[2], 16))
