"""Fields of Home Assistant's scripts as its conversation agents describe them to a model.

By the selector of the field: the schema, which keywords are noted as not enforced, and a value that fits.
Written down by hand from what its serializer and `voluptuous-openapi` make of each selector (November 2026).
"""

from __future__ import annotations

from typing import Any, NamedTuple


class Field(NamedTuple):
    schema: dict[str, Any]
    value: Any
    noted: frozenset[str] = frozenset()


TEXT: dict[str, Any] = {"type": "string"}
ENTITY: dict[str, Any] = {"type": "string", "format": "entity_id"}
FORMAT = frozenset({"format"})
IDS: dict[str, Any] = {
    "anyOf": [
        {"type": "string", "enum": ["none"]},
        {"type": "array", "items": ENTITY},
        {"type": "array", "items": TEXT},
    ]
}
NUMBER: dict[str, Any] = {"type": "number"}

SELECTORS: dict[str, Field] = {
    "action": Field({"type": "array", "items": {"type": "object", "additionalProperties": True}}, []),
    "area": Field(TEXT, "kitchen"),
    "several areas": Field({"type": "array", "items": TEXT}, ["kitchen", "hall"]),
    "attribute": Field(TEXT, "brightness"),
    "backup location": Field(TEXT | {"pattern": r"^(?:\/backup|\w+)$"}, "/backup"),
    "boolean": Field({"type": "boolean"}, True),
    "colour": Field(
        {"type": "array", "items": NUMBER, "minItems": 3, "maxItems": 3, "format": "RGB"}, [255, 0, 10]
    ),
    "colour of four parts": Field(
        {"type": "array", "prefixItems": [NUMBER] * 4, "minItems": 4, "maxItems": 4}, [1, 2, 3, 4]
    ),
    "colour temperature": Field(NUMBER | {"minimum": 153, "maximum": 500}, 200),
    "colour temperature in kelvin": Field(NUMBER | {"minimum": 2000.0, "maximum": 6500.0}, 2700),
    "condition": Field(
        {"type": "array", "items": {"anyOf": [TEXT, {"type": "object", "additionalProperties": True}]}},
        ["sun"],
    ),
    "constant": Field({"enum": ["on"]}, "on"),
    "constant true": Field({"enum": [True]}, True),
    "country": Field(TEXT | {"format": "ISO 3166-1 alpha-2"}, "AT", FORMAT),
    "some countries": Field(TEXT | {"enum": ["AT", "CH"]}, "CH"),
    "date": Field(TEXT | {"format": "date"}, "2026-11-29"),
    "date and time": Field(TEXT | {"format": "date-time"}, "2026-11-29T07:30:00Z"),
    "duration": Field(
        {
            "type": "object",
            "properties": dict.fromkeys(("days", "hours", "minutes", "seconds", "milliseconds"), NUMBER),
            "required": [],
        },
        {"minutes": 5},
    ),
    "entity": Field(ENTITY, "vacuum.hall", FORMAT),
    "several entities": Field({"type": "array", "items": ENTITY}, ["light.hall"], FORMAT),
    "icon": Field(TEXT, "mdi:lamp"),
    "language": Field(TEXT | {"format": "RFC 5646"}, "de-AT", FORMAT),
    "location": Field(
        {
            "type": "object",
            "properties": {"latitude": NUMBER, "longitude": NUMBER, "radius": NUMBER},
            "required": ["latitude", "longitude"],
        },
        {"latitude": 48.2, "longitude": 16.4},
    ),
    "media": Field(
        {
            "type": "object",
            "properties": {
                "entity_id": TEXT,
                "media_content_id": TEXT,
                "media_content_type": TEXT,
                "metadata": {"type": "object", "additionalProperties": True},
            },
            "required": ["media_content_id", "media_content_type"],
        },
        {"media_content_id": "1", "media_content_type": "music"},
    ),
    "number": Field(NUMBER | {"minimum": 0, "maximum": 100}, 40),
    "number without bounds": Field(NUMBER, 1.5),
    "whole number": Field({"type": "integer", "minimum": 1, "maximum": 12}, 3),
    "object": Field({"type": "object", "additionalProperties": True}, {"a": [1]}),
    "object with fields": Field(
        {
            "type": "object",
            "properties": {"name": TEXT, "level": NUMBER | {"minimum": 0, "maximum": 9}},
            "required": ["name"],
            "additionalProperties": False,
        },
        {"name": "x", "level": 2},
    ),
    "several objects": Field(
        {
            "type": "array",
            "items": {"type": "object", "properties": {"name": TEXT}, "additionalProperties": False},
        },
        [{"name": "x"}],
    ),
    "select": Field(TEXT | {"enum": ["eco", "max"]}, "eco"),
    "several of select": Field(
        {"type": "array", "items": TEXT | {"enum": ["eco", "max"]}, "uniqueItems": True},
        ["eco"],
        frozenset({"uniqueItems"}),
    ),
    "select or something else": Field({"anyOf": [TEXT | {"enum": ["eco", "max"]}, TEXT]}, "other"),
    "state": Field(TEXT, "on"),
    "target": Field(
        {
            "type": "object",
            "properties": dict.fromkeys(("entity_id", "device_id", "area_id", "floor_id", "label_id"), IDS),
            "required": [],
        },
        {"area_id": ["hall"]},
        FORMAT,
    ),
    "template": Field(TEXT | {"format": "jinja2"}, "{{ 1 }}", FORMAT),
    "text": Field(TEXT, "hello"),
    "several texts": Field({"type": "array", "items": TEXT}, ["a", "b"]),
    "theme": Field(TEXT, "dark"),
    "time": Field(TEXT | {"format": "time"}, "07:30:00", FORMAT),
    "time without seconds": Field(TEXT | {"format": "HH:MM"}, "07:30", FORMAT),
    "trigger": Field(
        {"type": "array", "items": {"type": "array", "items": {"type": "object"}}},
        [[]],
    ),
    "lower case": Field(TEXT | {"format": "lower"}, "abc", FORMAT),
    "nothing": Field({"type": "object", "nullable": True, "description": "Must be null"}, None),
    "optional number": Field({"type": ["number", "null"]}, None),
    "address": Field(TEXT | {"format": "fqdnurl"}, "https://example.org/", FORMAT),
    "email": Field(TEXT | {"format": "email"}, "a@example.org"),
}  # fmt: skip


def script() -> dict[str, Any]:
    """The parameters of a script that has every kind of field."""
    properties = {
        name.replace(" ", "_"): field.schema | {"description": f"the {name}"}
        for name, field in SELECTORS.items()
    }
    return {"type": "object", "properties": properties, "required": ["entity", "several_of_select"]}
