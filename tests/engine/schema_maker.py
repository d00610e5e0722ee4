"""Random JSON schemas over every keyword that is enforced, nested, with references to themselves.

The tests make a few hundred of them, `scripts/faults/closing.py` thousands.
"""

# ruff: noqa: E501
from __future__ import annotations

import json
import random
from typing import Any

Schema = dict[str, Any]
KEYS = (
    "a",
    "b",
    "name",
    "value",
    "left",
    "right",
    "items",
    "x y",
    "naïve",
    "日本",
    'q"uote',
    "n/a",
    "~",
)
PATTERNS = (
    "[0-9]{2}", "foo", "x[0-9]{2}y", "^[A-Z]{3}-[0-9]{4}$", "^a.*b$", "end$", "^start", "^(yes|no|maybe)$",
    "(ab)+c", r"^\d{4}-\d{2}$", r"\w+@\w+", "^[^ ]+ [^ ]+$", "^x*$", "a|bc|def", "^(a|b){5,9}$", "[aeiou]{3}.[0-9]",
    r"^\S{3,9}$",
    "^.{7}$", r"v\d+\.\d+", "zebra|quagga", "^[é-ü]{2}$", "(foo|bar){2}", "^[a-z]+(-[a-z]+){2}$",
)  # fmt: skip
FORMATS = (
    "date-time", "time", "date", "duration", "email", "hostname", "ipv4", "ipv6", "uuid", "uri",
)  # fmt: skip
VALUES: tuple[Any, ...] = (
    "red",
    "green",
    "",
    "a\\b",
    'say "x"',
    "é",
    "🎈",
    0,
    1,
    -7,
    2.5,
    1000000,
    True,
    False,
    None,
)


def schema_of(seed: int) -> Schema:
    """A schema: the same one for the same seed. Not every one of them can be satisfied."""
    make = _Maker(random.Random(seed))
    root = make.any(3)
    if make.random.random() < 0.5 or "$ref" in json.dumps(root):
        root = make.object(3)
    if make.definitions:
        root["$defs"] = make.definitions
    return root


class _Maker:
    def __init__(self, random: random.Random) -> None:
        self.random = random
        self.definitions: Schema = {}

    def any(self, depth: int) -> Schema:
        kinds = [self.text, self.number, self.values, self.scalar]
        if depth > 0:
            kinds += [self.object, self.object, self.array, self.choice, self.reference, self.both]
        return self.random.choice(kinds)(depth)

    def scalar(self, depth: int) -> Schema:
        kinds = ["boolean", "null", "string", "integer", "number"]
        if self.random.random() < 0.2:
            return {"type": self.random.sample(kinds, 2)}
        return {"type": self.random.choice(kinds)}

    def text(self, depth: int) -> Schema:
        node: Schema = {"type": "string"}
        match self.random.randrange(5):
            case 0:
                node["pattern"] = self.random.choice(PATTERNS)
            case 1:
                node["format"] = self.random.choice(FORMATS)
            case 2:
                node["minLength"] = self.random.choice([0, 1, 3, 12, 60])
                if self.random.random() < 0.6:
                    node["maxLength"] = node["minLength"] + self.random.choice([0, 1, 9])
            case 3:
                node["maxLength"] = self.random.choice([0, 1, 5, 30])
        return node

    def number(self, depth: int) -> Schema:
        kind = self.random.choice(["integer", "number"])
        node: Schema = {"type": kind}
        low = self.random.choice([-1000, -5, -1, 0, 0, 1, 17, 995])
        if self.random.random() < 0.6:
            node[self.random.choice(["minimum", "exclusiveMinimum"])] = low
        if self.random.random() < 0.6:
            high = self.random.choice([0, low + 1, low + 20, low + 5000])
            node[self.random.choice(["maximum", "exclusiveMaximum"])] = high
        if self.random.random() < 0.2:
            node["multipleOf"] = self.random.choice([1, 2, 5, 7, 25])
        return node

    def values(self, depth: int) -> Schema:
        if self.random.random() < 0.3:
            return {"const": self.random.choice([*VALUES, [1, "two"], {"k": [None]}])}
        return {"enum": self.random.sample(VALUES, self.random.randint(1, 6))}

    def array(self, depth: int) -> Schema:
        node: Schema = {"type": "array", "items": self.any(depth - 1)}
        if self.random.random() < 0.4:
            node["minItems"] = self.random.choice([0, 1, 2, 5])
        if self.random.random() < 0.4:
            node["maxItems"] = node.get("minItems", 0) + self.random.choice([0, 1, 4])
        if self.random.random() < 0.2:
            node["prefixItems"] = [self.any(depth - 1) for _ in range(self.random.randint(1, 3))]
        return node

    def object(self, depth: int) -> Schema:
        names = self.random.sample(KEYS, self.random.randint(0, 5))
        node: Schema = {"type": "object", "properties": {n: self.any(depth - 1) for n in names}}
        node["required"] = [name for name in names if self.random.random() < 0.6]
        chance = self.random.random()
        if chance < 0.5:
            node["additionalProperties"] = False
        elif chance < 0.6:
            node["additionalProperties"] = self.scalar(0)
        elif chance < 0.7:
            node["patternProperties"] = {"^p[0-9]{1,2}$": self.scalar(0)}
        return node

    def choice(self, depth: int) -> Schema:
        return {"anyOf": [self.any(depth - 1) for _ in range(self.random.randint(1, 3))]}

    def both(self, depth: int) -> Schema:
        if self.random.random() < 0.5:
            return {"allOf": [{"type": "string", "minLength": 2}, {"maxLength": 9}]}
        return {"allOf": [{"type": "integer", "minimum": -3}, {"exclusiveMaximum": 8}]}

    def reference(self, depth: int) -> Schema:
        """To a definition of its own, which may hold itself where it may also be left out."""
        name = f"d{len(self.definitions)}"
        self.definitions[name] = {}
        inner = self.any(depth - 1)
        again = {"$ref": f"#/$defs/{name}"}
        match self.random.randrange(3):
            case 0:
                made: Schema = {
                    "type": "object",
                    "properties": {"v": inner, "next": {"anyOf": [again, {"type": "null"}]}},
                    "required": ["v", "next"],
                }
            case 1:
                made = {
                    "type": "object",
                    "properties": {
                        "left": {"anyOf": [{"type": "string", "maxLength": 5}, again]},
                        "right": {"anyOf": [again, inner]},
                    },
                    "required": ["left", "right"],
                }
            case _:
                made = {"type": "array", "items": {"anyOf": [again, inner]}, "maxItems": 3}
        self.definitions[name] = made
        return dict(again)
