"""JSON schemas: good ones over every keyword that is honoured, bad ones of every kind.

`scripts/faults/schemas.py` sends them all, the tests some of them.
"""

# ruff: noqa: E501
from __future__ import annotations

import json
from pathlib import Path
from typing import Any

Schema = dict[str, Any]

STRING, INTEGER, NUMBER, BOOLEAN, NULL = (
    {"type": kind} for kind in ("string", "integer", "number", "boolean", "null")
)
SHORT = {"type": "string", "maxLength": 12}
DIGIT = {"type": "integer", "minimum": 0, "maximum": 9}


def obj(properties: Schema, required: list[str] | None = None, **more: Any) -> Schema:
    """An object whose properties are all required unless said otherwise."""
    names = list(properties) if required is None else required
    return {"type": "object", "properties": properties, "required": names, **more}


def arr(items: Any, **more: Any) -> Schema:
    return {"type": "array", "items": items, **more}


def _scalars() -> dict[str, Schema]:
    found: dict[str, Schema] = {
        "boolean": BOOLEAN, "null": NULL, "short": SHORT, "digit": DIGIT,
        "type list": {"type": ["boolean", "null"]},
        "type list of three": {"type": ["string", "integer", "null"], "maxLength": 5, "maximum": 99, "minimum": 0},
        "no type": {"enum": ["a", 1, None, True, 2.5]},
        "const text": {"const": "it is \"quoted\" \\ and\nbroken"}, "const zero": {"const": 0},
        "const null": {"const": None}, "const object": {"const": {"a": [1, {"b": "c"}], "d": None}},
        "const array": {"const": [1, "two", False]}, "const unicode": {"const": "naïve 日本 🎈"},
        "enum of texts": {"type": "string", "enum": ["red", "green", "blue"]},
        "enum of like beginnings": {"enum": ["inter", "internal", "international", "in"]},
        "enum of numbers": {"type": "number", "enum": [1, 1.5, -2, 1e3]},
        "enum of objects": {"enum": [{"a": 1}, {"a": 2, "b": []}, []]},
        "enum of many": {"enum": [f"value-{i:03}" for i in range(200)]},
        "enum with unicode": {"enum": ["é", "ß", "日", "🎈", "\u0000", "\t"]},
        "enum of one": {"enum": ["only"]}, "enum of emptiness": {"enum": ["", [], {}]},
        "enum cut by type": {"type": "string", "enum": ["a", 1, "b"]},
    }  # fmt: skip
    for low, high in ((0, 0), (0, 1), (3, 3), (5, 9), (0, 20), (30, 40)):
        found[f"length {low} to {high}"] = {"type": "string", "minLength": low, "maxLength": high}
    bounds = [
        {"minimum": 1, "maximum": 5}, {"minimum": -5, "maximum": 5}, {"minimum": 995, "maximum": 1005},
        {"exclusiveMinimum": 0, "exclusiveMaximum": 3}, {"minimum": -1000, "maximum": -990},
        {"minimum": 0, "maximum": 4294967295}, {"minimum": 17, "maximum": 17},
        {"minimum": 0, "maximum": 100, "multipleOf": 25}, {"minimum": 0, "maximum": 99, "multipleOf": 7},
    ]  # fmt: skip
    found |= {f"integer {json.dumps(b)}": {"type": "integer", **b} for b in bounds}
    bounds = [
        {"minimum": 0, "maximum": 1}, {"minimum": -1.5, "maximum": 1.5}, {"exclusiveMinimum": 0, "maximum": 10},
        {"minimum": 0.001, "maximum": 0.002}, {"exclusiveMaximum": 0, "minimum": -0.5},
        {"minimum": 0, "maximum": 10, "multipleOf": 0.5}, {"minimum": 99.5, "maximum": 100.25},
    ]  # fmt: skip
    found |= {f"number {json.dumps(b)}": {"type": "number", **b} for b in bounds}
    return found


def _texts() -> dict[str, Schema]:
    patterns = [
        "^[A-Z]{3}-[0-9]{4}$", "^[a-z]{1,8}$", "^(yes|no|maybe)$", r"^\d{4}-\d{2}-\d{2}$", "^[^\"\\\\]{2,6}$",
        "^#[0-9a-f]{6}$", "^a{1,3}b{0,2}c?$", r"^\w{1,10}$", r"^\S{3,9}$", "^[+]?[0-9]{5,9}$", "^(ab|cd){2,4}$",
        r"^[0-9]{1,3}(\.[0-9]{1,3}){3}$", "^[a-zA-Z_][a-zA-Z0-9_]{0,12}$", "^x*$", "^$", "^.{4}$", "^[é-ü]{2}$",
        "^(Mr|Ms)[.] [A-Z][a-z]{2,9}$", r"^[A-Z]{2}\d{2}( ?[0-9]{4}){3}$", r"^\$[0-9]{1,4}\.[0-9]{2}$",
        "^([01][0-9]|2[0-3]):[0-5][0-9]$", "^/[a-z/]{1,12}$", r"^v\d+\.\d+\.\d+$", "^[^ ]+ [^ ]+$", "^-+$",
    ]  # fmt: skip
    found = {f"pattern {p}": {"type": "string", "pattern": p} for p in patterns}
    found["pattern and length"] = {"type": "string", "pattern": "^[a-z]*$", "maxLength": 6}
    found["pattern of a part"] = {"type": "string", "pattern": "[0-9]{2}", "maxLength": 8}
    formats = (
        "date-time",
        "time",
        "date",
        "duration",
        "email",
        "hostname",
        "ipv4",
        "ipv6",
        "uuid",
        "uri",
    )
    return found | {f"format {f}": {"type": "string", "format": f} for f in formats}


def _arrays() -> dict[str, Schema]:
    found = {f"array of {i}": arr(item, maxItems=3) for i, item in enumerate(
        (STRING | {"maxLength": 4}, DIGIT, BOOLEAN, NULL, {"enum": ["a", "b"]}, obj({"a": DIGIT}), arr(DIGIT, maxItems=2))
    )}  # fmt: skip
    for low, high in ((0, 0), (1, 1), (2, 2), (0, 5), (3, 6), (10, 10)):
        found[f"items {low} to {high}"] = arr(DIGIT, minItems=low, maxItems=high)
    return found | {
        "tuple": {"type": "array", "prefixItems": [DIGIT, BOOLEAN], "items": False, "minItems": 2},
        "tuple and more": {"type": "array", "prefixItems": [BOOLEAN], "items": DIGIT, "minItems": 1, "maxItems": 4},
        "tuple, draft 7": {
            "$schema": "http://json-schema.org/draft-07/schema#",
            "type": "array", "items": [DIGIT, BOOLEAN], "additionalItems": False, "minItems": 2,
        },
        "matrix": arr(arr(DIGIT, minItems=2, maxItems=2), minItems=2, maxItems=2),
        "unique items not asked for": arr(DIGIT, uniqueItems=False, maxItems=2),
        "array of any of": arr({"anyOf": [DIGIT, BOOLEAN, NULL]}, maxItems=4),
    }  # fmt: skip


def _objects() -> dict[str, Schema]:
    found = {f"{n} properties": obj({f"p{i}": DIGIT for i in range(n)}) for n in (1, 2, 5, 12, 30)}
    found |= {f"{n} optional": obj({f"p{i}": DIGIT for i in range(n)}, []) for n in (1, 3, 8, 20)}
    deep: Schema = DIGIT
    for level in range(8):
        deep = obj({f"level{level}": deep})
    names = ["with space", "with\"quote", "naïve", "日本", "a/b", "~", "$ref_", "", "emoji🎈", "new\nline"]  # fmt: skip
    return found | {
        "deep": deep,
        "closed": obj({"a": DIGIT}, additionalProperties=False),
        "open with texts": obj({"a": DIGIT}, additionalProperties={"type": "string", "maxLength": 5}, maxProperties=2),
        "a map": {"type": "object", "additionalProperties": DIGIT, "minProperties": 1, "maxProperties": 3},
        "an empty object": {"type": "object", "additionalProperties": False},
        "names of every kind": obj(dict.fromkeys(names, BOOLEAN)),
        "names that begin alike": obj({"a": DIGIT, "ab": DIGIT, "abc": DIGIT, "b": DIGIT}, ["ab", "b"]),
        "pattern properties": {
            "type": "object", "patternProperties": {"^[a-c]$": DIGIT}, "additionalProperties": False, "maxProperties": 2,
        },
        "required in another order": obj({"z": DIGIT, "a": BOOLEAN}, ["a", "z"]),
        "nested objects": obj({"person": obj({"name": SHORT, "age": DIGIT}), "tags": arr(SHORT, maxItems=2)}),
        "a property that may be null": obj({"a": {"type": ["string", "null"], "maxLength": 4}}),
        "a property that may not be": obj({"a": DIGIT, "never": False}, ["a"]),
        "annotations": obj(
            {"a": DIGIT | {"title": "A", "description": "the a", "default": 1, "examples": [2], "deprecated": True}},
            title="T", description="D", **{"$schema": "https://json-schema.org/draft/2020-12/schema", "$comment": "c"},
        ),
        "words of our own": obj({"a": DIGIT | {"x-order": 1}}, **{"x-form": "wide"}),
        "pydantic optional": obj({"a": {"anyOf": [SHORT, NULL], "default": None, "title": "A"}}, []),
        "ticket": obj({
            "intent": {"type": "string", "enum": ["refund", "schedule", "complaint", "other"]},
            "customer_reference_number": {"type": "string", "pattern": "^[A-Z]{3}-[0-9]{4}$"},
            "urgent": BOOLEAN,
            "preferred_contact_channel": {"type": "string", "enum": ["telephone", "electronic_mail"]},
        }, additionalProperties=False),
        "clinical note": obj({
            "temperature_c": {"type": "number", "minimum": 30, "maximum": 45}, "complaint": SHORT,
            "medication": arr(obj({"name": SHORT, "dose_mg": {"type": "integer", "minimum": 1, "maximum": 1000}}), maxItems=2),
        }),
    }  # fmt: skip


def _combined() -> dict[str, Schema]:
    cat = obj({"kind": {"const": "cat"}, "lives": DIGIT})
    dog = obj({"kind": {"const": "dog"}, "name": SHORT})
    node = obj({"value": DIGIT, "next": {"anyOf": [{"$ref": "#/$defs/node"}, NULL]}})
    pet: Schema = {"$defs": {"Cat": cat, "Dog": dog}}
    return {
        "any of types": {"anyOf": [DIGIT, SHORT, NULL]},
        "any of objects": {"anyOf": [cat, dog]},
        "any of one": {"anyOf": [BOOLEAN]},
        "any of overlapping": {"anyOf": [{"type": "integer", "minimum": 0, "maximum": 50}, {"enum": [7, 99]}]},
        "one of types": {"oneOf": [DIGIT, SHORT]},
        "one of told apart": {"oneOf": [cat, dog], "discriminator": {"propertyName": "kind"}},
        "one of references": {"oneOf": [{"$ref": "#/$defs/Cat"}, {"$ref": "#/$defs/Dog"}], **pet},
        "all of one": {"allOf": [SHORT]},
        "all of two": {"allOf": [{"type": "integer", "minimum": 3}, {"maximum": 8}]},
        "all of lengths": {"allOf": [{"type": "string", "minLength": 2}, {"maxLength": 5}]},
        "all of objects": {"allOf": [
            {"type": "object", "properties": {"a": DIGIT, "b": BOOLEAN}, "additionalProperties": False},
            {"required": ["a"]}, {"required": ["b"]},
        ]},
        "one of references, elsewhere": obj({"pet": {"oneOf": [{"$ref": "#/$defs/Cat"}, {"$ref": "#/$defs/Dog"}]}}, **pet),
        "one of enums": {"oneOf": [
            obj({"k": {"enum": ["a", "b"]}, "v": DIGIT}), obj({"k": {"enum": ["c"]}, "v": BOOLEAN}), NULL, arr(DIGIT, maxItems=2)]},
        "beside any of": obj({"a": DIGIT}, [], anyOf=[{"required": ["a"]}], additionalProperties=False),
        "a reference": {"$ref": "#/$defs/d", "$defs": {"d": DIGIT}},
        "a reference, draft 7": {"$ref": "#/definitions/d", "definitions": {"d": DIGIT}},
        "references of references": {"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/b"}, "b": BOOLEAN}},
        "a reference used twice": obj({"a": {"$ref": "#/$defs/d"}, "b": {"$ref": "#/$defs/d"}}, **{"$defs": {"d": DIGIT}}),
        "a reference with a title": obj({"a": {"$ref": "#/$defs/d", "description": "x"}}, **{"$defs": {"d": DIGIT}}),
        "a reference into properties": obj({"a": DIGIT, "b": {"$ref": "#/properties/a"}}),
        "a reference with escapes": {"$ref": "#/$defs/a~1b", "$defs": {"a/b": BOOLEAN}},
        "a bound beside a reference": {"$ref": "#/$defs/d", "maximum": 5, "$defs": {"d": DIGIT}},
        "a list of nodes": {"$ref": "#/$defs/node", "$defs": {"node": node}},
        "a tree": obj({"v": DIGIT, "children": arr({"$ref": "#"}, maxItems=2)}),
        "draft 4 bounds": {
            "$schema": "http://json-schema.org/draft-04/schema#",
            "type": "integer", "minimum": 0, "exclusiveMinimum": True, "maximum": 5,
        },
        "any object": {"type": "object", "maxProperties": 2, "additionalProperties": DIGIT},
        "any json": obj({"a": {"anyOf": [DIGIT, arr(DIGIT, maxItems=2), obj({"b": NULL})]}}),
    }  # fmt: skip


def good() -> dict[str, Schema]:
    """Schemas that can be held to, by name."""
    return _scalars() | _texts() | _arrays() | _objects() | _combined()


BFCL_TYPES = {"dict": "object", "float": "number", "tuple": "array", "any": "string", "int": "integer"}  # fmt: skip


def bfcl(folder: Path) -> dict[str, Schema]:
    """The parameters of every function of the Berkeley Function Calling Leaderboard's files, in the
    words of JSON Schema, each once."""
    found: dict[str, Schema] = {}
    for name in ("simple_python", "multiple", "parallel"):
        for line in (folder / f"BFCL_v4_{name}.json").read_text(encoding="utf-8").splitlines():
            for function in json.loads(line)["function"]:
                schema = translated(function["parameters"])
                found.setdefault(json.dumps(schema), schema)
    return {f"bfcl {i}": schema for i, schema in enumerate(found.values())}


def translated(value: Any) -> Any:
    if isinstance(value, list):
        return [translated(item) for item in value]
    if not isinstance(value, dict):
        return value
    node = {key: translated(item) for key, item in value.items()}
    if isinstance(node.get("type"), str):
        node["type"] = BFCL_TYPES.get(node["type"], node["type"])
    node.pop("optional", None)
    return {key: item for key, item in node.items() if key != "format" or not isinstance(item, str)}


WRONG_VALUES: dict[str, list[Any]] = {
    "type": ["strin", "any", "dict", "float", 5, None, {}, ["string", "x"], [], ["string", "string"]],
    "enum": ["a", 5, None, {}, []],
    "properties": [[], 5, "a", {"a": 5}, {"a": "string"}, {"a": None}, {"a": {"type": "text"}}],
    "required": ["a", 5, [5], {"a": 1}, [None], ["a", "a"]],
    "additionalProperties": [5, "no", [], {"type": "x"}],
    "patternProperties": [[], {"(": {}}, {"a": 5}, "a", {"(?=a)b": {}}],
    "items": [5, "string", None, {"type": "x"}],
    "prefixItems": [5, {}, "a", [5], []],
    "minItems": [-1, 1.5, "1", None, []], "maxItems": [-1, 1.5, "1", None, {}],
    "minLength": [-1, 0.5, "3", None, []], "maxLength": [-1, 0.5, "3", None, []],
    "minProperties": [-1, "1", None, 0.5], "maxProperties": [-1, "1", None, 0.5],
    "pattern": [5, None, "(", "[", "a{2,1}", "(?=a)b", "(?!a)b", "(?<=a)b", r"(a)\1", "*", "(?P<n", "\\"],
    "format": [5, None, "phone", "int32", "regex", "iri", "json-pointer", []],
    "minimum": ["1", None, [], {}], "maximum": ["1", None, [], {}], "exclusiveMinimum": ["1", True, None],
    "exclusiveMaximum": ["1", True, None], "multipleOf": [0, -1, "2", None],
    "anyOf": [[], {}, "a", 5, [5], [{"type": "x"}]], "oneOf": [[], {}, "a", [5]], "allOf": [[], {}, "a", [5]],
    "$ref": ["http://example.com/x", "file:///etc/passwd", "other.json#/a", "#/$defs/nothing", "#/nowhere", 5, None,
             "urn:x:y", "//host/x", "ftp://h/x", "#/$defs/nothing/properties/a", "../x"],
    "$schema": ["http://example.com/schema", "http://localhost:1/x", 5, "draft-07"],
    "$defs": [5, [], {"a": 5}, {"a": {"type": "x"}}],
}  # fmt: skip
UNSUPPORTED: dict[str, Any] = {
    "not": {"type": "null"}, "if": {"type": "string"}, "then": {}, "else": {}, "contains": {"type": "integer"},
    "minContains": 1, "maxContains": 2, "unevaluatedProperties": False, "unevaluatedItems": False,
    "propertyNames": {"pattern": "^a"}, "dependentRequired": {"a": ["b"]}, "dependentSchemas": {"a": {}},
    "dependencies": {"a": ["b"]}, "$dynamicRef": "#a", "$recursiveRef": "#", "x-guidance": {"lenient": True},
    "uniqueItems": True, "nullable": True,
}  # fmt: skip


def _nested(n: int, leaf: Any) -> Any:
    for _ in range(n):
        leaf = {"type": "object", "properties": {"a": leaf}}
    return leaf


def _bombs() -> dict[str, Schema]:
    words = [f"w{i}" for i in range(5000)]
    return {
        "depth 100": _nested(100, STRING), "depth 300": _nested(300, STRING),
        "array depth 100": {"enum": [json.loads("[" * 100 + "]" * 100)]},
        "many properties": obj({f"p{i}": STRING for i in range(600)}),
        "many values": {"enum": words}, "many bytes": {"const": "x" * 70_000},
        "many bytes in a name": obj({"x" * 70_000: STRING}),
        "many patterns": {"anyOf": [{"type": "string", "pattern": f"^a{i}$"} for i in range(100)]},
        "long pattern": {"type": "string", "pattern": "a" * 2000},
        "nested repeats": {"type": "string", "pattern": "^((a{1000}){1000}){100}$"},
        "nested repeats in a class": {"type": "string", "pattern": "^(([a-z]{100}){100}){2}$"},
        "repeats of a property name": {"type": "object", "patternProperties": {"^((a{99}){99}){99}$": {}}},
        "deep groups": {"type": "string", "pattern": "(" * 300 + "a" + ")*" * 300},
        "intersected patterns": {"allOf": [{"type": "string", "pattern": f".*a{{{i}}}b.*"} for i in range(1, 20)]},
        "products of choices": {"allOf": [
            {"anyOf": [obj({f"p{i}_{j}": STRING}, []) for j in range(8)]} for i in range(8)]},
        "products of references": {"$ref": "#/$defs/d0", "$defs": {
            f"d{i}": {"allOf": [{"$ref": f"#/$defs/d{i + 1}"}, {"type": "string", "pattern": f"a{i}"}]} for i in range(30)}},
        "a huge multiple": {"type": "integer", "multipleOf": 999_999_937},
        "a reference to itself": {"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/a"}}},
        "a reference to the root": {"$ref": "#"},
        "references in a circle": {"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}},
        "no end of objects": {"$ref": "#/$defs/a", "$defs": {"a": obj({"a": {"$ref": "#/$defs/a"}})}},
        "lengths that cross": {"type": "string", "minLength": 5, "maxLength": 3},
        "items that cross": arr(STRING, minItems=5, maxItems=3), "bounds that cross": {"type": "integer", "minimum": 5, "maximum": 3},
        "types that exclude": {"allOf": [STRING, INTEGER]}, "a required property that may not be": obj({"a": False}),
        "required and closed": {"type": "object", "properties": {}, "required": ["a"], "additionalProperties": False},
        "one of that overlaps": {"oneOf": [INTEGER, NUMBER]}, "an enum without its type": {"type": "integer", "enum": ["a"]},
        "no multiple in bounds": {"type": "integer", "minimum": 1, "maximum": 2, "multipleOf": 7},
    }  # fmt: skip


def bad() -> dict[str, Schema]:
    """Schemas that must be refused, by name: 300 at least."""
    found: dict[str, Schema] = {}
    for key, values in WRONG_VALUES.items():
        for i, value in enumerate(values):
            found[f"{key} {i}"] = {key: value}
            found[f"{key} {i} inside"] = obj({"good": STRING, "wrong": {key: value}})
    for key, value in UNSUPPORTED.items():
        found[f"unsupported {key}"] = {"type": "string", key: value}
        found[f"unsupported {key} inside"] = obj({"list": arr({"type": "object", key: value})})
    return found | _bombs()
