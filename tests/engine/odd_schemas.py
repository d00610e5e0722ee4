"""Tool parameters that real clients send and that no grammar holds wholly: by name, with the keywords that are
noted as not enforced, and arguments that must fit all the same."""

# ruff: noqa: E501
from __future__ import annotations

from typing import Any

Odd = tuple[dict[str, Any], set[str]]
TEXT = {"type": "string"}


def of(schema: Any, **more: Any) -> dict[str, Any]:
    """Parameters with one property, which is required."""
    return {"type": "object", "properties": {"a": schema}, "required": ["a"], **more}


PATTERNS: dict[str, Odd] = {
    "look-ahead": (of(TEXT | {"pattern": "^(?=.*[0-9]).{3,8}$"}), {"pattern"}),
    "negative look-ahead": (of(TEXT | {"pattern": "^(?!admin).*$"}), {"pattern"}),
    "look-behind": (of(TEXT | {"pattern": "(?<=a)b"}), {"pattern"}),
    "negative look-behind": (of(TEXT | {"pattern": "(?<!a)b"}), {"pattern"}),
    "back-reference": (of(TEXT | {"pattern": r"^(a|b)\1$"}), {"pattern"}),
    "word boundary": (of(TEXT | {"pattern": r"\bfoo\b"}), {"pattern"}),
    "end as Python has it": (of(TEXT | {"pattern": r"^[a-z]{2}\Z"}), set()),
    "beginning as Python has it": (of(TEXT | {"pattern": r"\A[a-z]{2}\Z"}), set()),
    "possessive": (of(TEXT | {"pattern": "^a++b?+$"}), set()),
    "atomic": (of(TEXT | {"pattern": "^(?>a|b)c$"}), set()),
    "named group": (of(TEXT | {"pattern": "^(?P<year>[0-9]{4})$"}), set()),
    "control escape": (of(TEXT | {"pattern": r"^\cA$"}), {"pattern"}),
    "no pattern at all": (of(TEXT | {"pattern": "("}), {"pattern"}),
    "a number for a pattern": (of(TEXT | {"pattern": 5}), {"pattern"}),
    "too long a pattern": (of(TEXT | {"pattern": "a" * 2000}), {"pattern"}),
    "too many repeats": (of(TEXT | {"pattern": "^((a{1000}){1000}){100}$"}), {"pattern"}),
    "many patterns": (
        {
            "type": "object",
            "properties": {f"p{i}": TEXT | {"pattern": f"^a{i}$"} for i in range(80)},
        },
        {"pattern"},
    ),
    "a bad pattern of names": (
        of({"type": "object", "patternProperties": {"(?=a)b": {}}}),
        {"patternProperties"},
    ),
}
KEYWORDS: dict[str, Odd] = {
    "home assistant's entity": (of(TEXT | {"format": "entity_id"}), {"format"}),
    "home assistant's multi-select": (
        of(
            {
                "type": "array",
                "items": {"type": "string", "enum": ["eco", "max"]},
                "uniqueItems": True,
            }
        ),
        {"uniqueItems"},
    ),
    "home assistant's colour": (
        of(
            {
                "type": "array",
                "items": {"type": "number"},
                "minItems": 3,
                "maxItems": 3,
                "format": "RGB",
            }
        ),
        set(),
    ),
    "home assistant's time": (of(TEXT | {"format": "HH:MM:SS"}), {"format"}),
    "claude code's propertyNames": (
        of({"type": "object", "propertyNames": TEXT, "additionalProperties": TEXT}),
        set(),
    ),
    "propertyNames": (
        of({"type": "object", "propertyNames": {"pattern": "^a"}}),
        {"propertyNames"},
    ),
    "not": (of({"not": {"type": "null"}}), {"not"}),
    "not beside": (of(TEXT | {"not": {"enum": [""]}}), {"not"}),
    "if": (
        of(
            {
                "type": "object",
                "properties": {"k": TEXT},
                "if": {"required": ["k"]},
                "then": {"required": ["k"]},
                "else": {},
            }
        ),
        {"if", "then", "else"},
    ),
    "contains": (
        of({"type": "array", "contains": {"const": 1}, "minContains": 1, "maxContains": 3}),
        {"contains", "minContains", "maxContains"},
    ),
    "dependentRequired": (of(TEXT, dependentRequired={"a": ["a"]}), {"dependentRequired"}),
    "dependentSchemas": (
        of(TEXT, dependentSchemas={"a": {"required": ["a"]}}),
        {"dependentSchemas"},
    ),
    "dependencies": (
        of(TEXT, dependencies={"a": ["a"], "b": {"minProperties": 1}}),
        {"dependentRequired", "dependentSchemas"},
    ),
    "unevaluatedProperties": (of(TEXT, unevaluatedProperties=False), {"unevaluatedProperties"}),
    "unevaluatedItems": (of({"type": "array", "unevaluatedItems": False}), {"unevaluatedItems"}),
    "minProperties with optional ones": (
        {"type": "object", "properties": {"a": TEXT, "b": TEXT}, "minProperties": 1},
        {"minProperties"},
    ),
    "maxProperties with optional ones": (
        {"type": "object", "properties": {"a": TEXT, "b": TEXT}, "maxProperties": 1},
        {"maxProperties"},
    ),
    "overlapping oneOf": (of({"oneOf": [{"type": "integer"}, {"type": "number"}]}), {"oneOf"}),
    "overlapping objects": (
        of({"oneOf": [{"type": "object", "properties": {"x": TEXT}}, {"type": "object"}]}),
        {"oneOf"},
    ),
    "oneOf and anyOf": (
        of(
            {
                "oneOf": [{"type": "integer"}, {"type": "number"}],
                "anyOf": [{"minimum": 0}, {"maximum": 9}],
            }
        ),
        {"oneOf"},
    ),
    "unknown format": (of(TEXT | {"format": "phone"}), {"format"}),
    "format of a number": (of({"type": "integer", "format": "int64"}), set()),
    "format regex": (of(TEXT | {"format": "regex"}), {"format"}),
    "known format": (of(TEXT | {"format": "date-time"}), set()),
    "a huge multiple": (of({"type": "integer", "multipleOf": 999_999_937}), {"multipleOf"}),
    "a huge enum": (of({"enum": [f"w{i}" for i in range(4000)]}), {"enum"}),
    "llguidance's own keyword": (
        of(
            TEXT | {"x-guidance": {"lenient": True}},
            **{"x-guidance": {"whitespace_flexible": True}},
        ),
        set(),
    ),
    "vendor keywords": (
        of(
            TEXT | {"x-order": 1, "x-enum-names": ["A"], "example": "x", "examples": "x", "xml": {}}
        ),
        set(),
    ),
    "content": (of(TEXT | {"contentEncoding": "base64", "contentMediaType": "image/png"}), set()),
}
DIALECTS: dict[str, Odd] = {
    "nullable text": (of(TEXT | {"nullable": True}), set()),
    "nullable enum": (of({"type": "string", "enum": ["x"], "nullable": True}), set()),
    "nullable reference": (
        of({"$ref": "#/$defs/d", "nullable": True}, **{"$defs": {"d": TEXT}}),
        set(),
    ),
    "nullable reference to nothing": (of({"$ref": "#/$defs/d", "nullable": True}), {"$ref"}),
    "nullable choice": (of({"anyOf": [TEXT, {"type": "integer"}], "nullable": True}), set()),
    "nullable without a type": (of({"nullable": True, "description": "x"}), set()),
    "tuple of draft 7": (
        of(
            {
                "type": "array",
                "items": [TEXT, {"type": "integer"}],
                "additionalItems": False,
                "minItems": 2,
            }
        ),
        set(),
    ),
    "tuple and more": (
        of({"type": "array", "items": [TEXT], "additionalItems": {"type": "integer"}}),
        set(),
    ),
    "bounds of draft 4": (
        of({"type": "integer", "minimum": 0, "exclusiveMinimum": True, "maximum": 5}),
        set(),
    ),
    "a flag without a bound": (of({"type": "integer", "exclusiveMaximum": True}), set()),
    "required of draft 3": (of(TEXT | {"required": True}), set()),
    "Gemini's upper case": (
        {
            "type": "OBJECT",
            "properties": {
                "a": {"type": "STRING"},
                "b": {"type": "ARRAY", "items": {"type": "NUMBER"}},
            },
            "required": ["a"],
        },
        set(),
    ),
    "any type": (of({"type": "any"}), set()),
    "Python's types": (
        {
            "type": "dict",
            "properties": {
                "a": {"type": "str"},
                "b": {"type": "float"},
                "c": {"type": "list"},
                "d": {"type": "bool"},
                "e": {"type": "int"},
            },
        },
        set(),
    ),
    "an unknown type": (of({"type": "file"}), {"type"}),
    "an empty list of types": (of({"type": []}), set()),
    "a list of odd types": (of({"type": ["String", "NULL", "string"]}), set()),
    "a number for a type": (of({"type": 5}), {"type"}),
    "numbers as text": (of({"type": "integer", "minimum": "1", "maximum": "5"}), set()),
    "a bound that is no number": (of({"type": "integer", "minimum": "low"}), {"minimum"}),
    "lengths that are floats": (of(TEXT | {"minLength": 2.0, "maxLength": 4.0}), set()),
    "negative lengths": (of(TEXT | {"minLength": -1}), {"minLength"}),
    "enum of another type": (of({"type": "integer", "enum": ["1", "2"]}), {"type"}),
    "an empty enum": (of({"enum": []}), {"enum"}),
    "enum twice the same": (of({"enum": ["a", "a", 1, 1.0]}), set()),
    "a text for an enum": (of({"enum": "a"}), {"enum"}),
    "required that is a text": (
        {"type": "object", "properties": {"a": TEXT}, "required": "a"},
        {"required"},
    ),
    "required twice the same": (
        {"type": "object", "properties": {"a": TEXT}, "required": ["a", "a"]},
        set(),
    ),
    "required and unknown": (
        {"type": "object", "properties": {"a": TEXT}, "required": ["a", "b"]},
        set(),
    ),
    "properties that are a list": (
        {"type": "object", "properties": [{"name": "a"}]},
        {"properties"},
    ),
    "a property that is a text": (of("string"), {""}),
    "nulls everywhere": (
        {
            "type": "object",
            "description": None,
            "title": None,
            "default": None,
            "required": None,
            "enum": None,
            "$defs": None,
            "additionalProperties": None,
            "properties": {
                "a": {
                    "type": "string",
                    "enum": None,
                    "description": None,
                    "pattern": None,
                    "minLength": None,
                    "items": None,
                    "format": None,
                    "examples": None,
                    "anyOf": None,
                }
            },
        },
        set(),
    ),
    "properties that are null": ({"type": "object", "properties": None, "required": None}, set()),
    "a property that is null": (of(None), set()),
    "a constant that is null": (of({"const": None}), set()),
    "boolean schemas": (
        {
            "type": "object",
            "properties": {"a": True, "b": False},
            "required": ["a"],
            "additionalProperties": True,
        },
        set(),
    ),
    "additionalProperties that is {}": (of(TEXT, additionalProperties={}), set()),
    "additionalProperties that is a text": (of(TEXT, additionalProperties="yes"), {""}),
    "no type": ({"properties": {"a": TEXT}, "required": ["a"]}, set()),
    "nothing": ({}, set()),
    "only a type": ({"type": "object"}, set()),
    "a root that may be null": ({"type": ["object", "null"], "properties": {"a": TEXT}}, set()),
    "a root that is a text": ({"type": "string"}, {"type"}),
    "a root of choices": (
        {
            "anyOf": [
                {"properties": {"a": TEXT}, "required": ["a"]},
                {"properties": {"b": TEXT}, "required": ["b"]},
            ]
        },
        set(),
    ),
    "empty choices": (of({"anyOf": []}), {"anyOf"}),
    "choices that are a map": (of({"oneOf": {}}), {"oneOf"}),
    "a choice that is null": (of({"anyOf": [TEXT, None]}), set()),
}
REFERENCES: dict[str, Odd] = {
    "definitions": (of({"$ref": "#/definitions/d"}, definitions={"d": TEXT}), set()),
    "a reference to a URL": (of({"$ref": "https://example.com/schema.json"}), {"$ref"}),
    "a reference to a file": (of({"$ref": "file:///etc/passwd"}), {"$ref"}),
    "a reference to an anchor": (
        of({"$ref": "#node"}, **{"$defs": {"n": {"$anchor": "node"}}}),
        {"$ref"},
    ),
    "a reference to nothing": (of({"$ref": "#/$defs/nothing"}), {"$ref"}),
    "a reference into a tuple": (
        {
            "type": "object",
            "properties": {
                "l": {"type": "array", "items": [TEXT]},
                "a": {"$ref": "#/properties/l/items/0"},
            },
            "required": ["a"],
        },
        set(),
    ),
    "a number for a reference": (of({"$ref": 5}), {"$ref"}),
    "a recursive reference": (
        of(
            {"$ref": "#/$defs/n"},
            **{
                "$defs": {
                    "n": {
                        "type": "object",
                        "properties": {
                            "next": {"anyOf": [{"$ref": "#/$defs/n"}, {"type": "null"}]}
                        },
                        "required": ["next"],
                    }
                }
            },
        ),
        set(),
    ),
    "references in a circle": (
        of(
            {"$ref": "#/$defs/x"},
            **{"$defs": {"x": {"$ref": "#/$defs/y"}, "y": {"$ref": "#/$defs/x"}}},
        ),
        {"$ref"},
    ),
    "a reference to the root": ({"type": "object", "properties": {"a": {"$ref": "#"}}}, set()),
    "a reference that never ends": (of({"$ref": "#"}), {""}),
    "$recursiveRef": (of({"$recursiveRef": "#"}), {"$recursiveRef"}),
    "$dynamicRef": (of({"$dynamicRef": "#x"}), {"$dynamicRef"}),
    "a bound beside a reference": (
        of({"$ref": "#/$defs/d", "maximum": 5}, **{"$defs": {"d": {"type": "integer"}}}),
        set(),
    ),
    "draft 3": (of(TEXT, **{"$schema": "http://json-schema.org/draft-03/schema#"}), set()),
    "a schema of its own": (
        of(
            TEXT,
            **{
                "$schema": "https://example.com/meta",
                "$id": "https://example.com/x",
                "$vocabulary": {"x": True},
            },
        ),
        set(),
    ),
}
CONTRADICTIONS: dict[str, Odd] = {
    "lengths that cross": (of(TEXT | {"minLength": 5, "maxLength": 3}), {"minLength", "maxLength"}),
    "bounds that cross": (
        of({"type": "integer", "minimum": 5, "maximum": 3}),
        {"minimum", "maximum"},
    ),
    "items that cross": (
        of({"type": "array", "minItems": 5, "maxItems": 3}),
        {"minItems", "maxItems"},
    ),
    "a required property that may not be": (of(False), {""}),
    "required and closed": (
        {"type": "object", "properties": {}, "required": ["a"], "additionalProperties": False},
        {""},
    ),
    "no multiple in bounds": (
        of({"type": "integer", "minimum": 1, "maximum": 2, "multipleOf": 7}),
        {"minimum", "maximum", "multipleOf"},
    ),
    "types that exclude": (of({"allOf": [TEXT, {"type": "integer"}]}), {"allOf"}),
}
ODD = PATTERNS | KEYWORDS | DIALECTS | REFERENCES | CONTRADICTIONS
