"""JSON whose tokens run out is closed: on real grammars over a vocabulary of bytes, without a model."""

# ruff: noqa: E501
from __future__ import annotations

import json
import resource
from typing import Any

import jsonschema
import numpy as np
import pytest

from edgeagent.engine.batching.time_slices import finished
from edgeagent.engine.structured import byte_grammar
from edgeagent.engine.structured.byte_grammar import Effort
from edgeagent.engine.structured.constraint import Constraint, Grammar
from edgeagent.engine.structured.grammar import compile_source, source_of
from edgeagent.engine.structured.grammar_compiler import try_out
from edgeagent.engine.structured.json_completion import JsonCompletion
from edgeagent.errors import BadRequest, SchemaUnsatisfiable
from edgeagent.types.generation import Form
from tests.conftest import EXAMPLES, n_examples
from tests.engine.schema_corpus import good
from tests.engine.schema_maker import schema_of

PATIENT = Effort(8000, 20)  # beside other tests
SOME = dict(list(good().items())[:: 4 if EXAMPLES >= 1 else 8])


@pytest.fixture(autouse=True)
def _there_is_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(byte_grammar, "TRY", PATIENT)


def grammar_of(schema: Any) -> Grammar:
    from llguidance import LLTokenizer

    source = source_of(Form(kind="json_schema", text=json.dumps(schema), is_strict=True))
    if not source.is_plain:
        try_out(source, 5)
    return compile_source(source, LLTokenizer("byte", slices=[]))


def babble(grammar: Grammar, max_new: int, seed: int) -> str:
    """A text of bytes drawn at random, closed where it has no more than `max_new` of them."""
    constraint, random = Constraint(grammar), np.random.default_rng(seed)
    ending, tokens = JsonCompletion(max_new, grammar.growth), list(constraint.opening)
    while not constraint.is_complete:
        closing = finished(constraint.way_out(None, PATIENT)) if len(tokens) >= max_new else None
        if closing is None:
            bits = np.unpackbits(np.frombuffer(constraint.allowed(), np.uint8), bitorder="little")
            token = int(random.choice(np.flatnonzero(bits)))
            if token > 255:  # the end
                break
            closing = finished(ending.instead(constraint, token, max_new - len(tokens)))
        if closing is not None:
            return bytes(tokens + closing).decode()
        assert len(tokens) < max_new, "there was a way out, and it was not found"
        tokens += [token, *constraint.accept(token)]
    return bytes(tokens).decode()


@pytest.mark.parametrize("name", sorted(SOME))
def test_whatever_is_said_ends_within_its_tokens_and_validates(name: str):
    schema = SOME[name]
    grammar = grammar_of(schema)
    shortest = finished(Constraint(grammar).way_out(None, PATIENT))
    assert shortest is not None, "every good schema has a short answer"
    most = 2 * len(shortest) + 60 + len(Constraint(grammar).opening)
    for seed in (1, 2):
        text = babble(grammar, most, seed)
        assert len(text.encode()) <= most
        jsonschema.validate(json.loads(text), schema)


@pytest.mark.parametrize("seed", [600, 912, 1072, 1379, 1651, 1656, 1756])
def test_a_long_way_out_is_found_before_the_answer_would_be_cut(seed: int):
    schema = schema_of(seed)
    grammar = grammar_of(schema)
    constraint = Constraint(grammar)
    way = finished(constraint.way_out(None, Effort(2000, 20)))
    assert way is not None
    jsonschema.validate(json.loads(bytes(constraint.opening + way)), schema)


@pytest.mark.parametrize(
    "seeds", [range(i, i + 15) for i in range(0, n_examples(240), 15)], ids=str
)
def test_answers_by_random_schemas_validate_however_few_tokens_they_have(seeds: range):
    for seed in seeds:
        schema = schema_of(seed)
        try:
            grammar = grammar_of(schema)
        except BadRequest:
            continue  # most often nothing satisfies it
        for limit in (1, 12, 70):
            text = babble(grammar, limit, seed)
            jsonschema.validate(json.loads(text), schema)


TREE = {
    "type": "object",
    "properties": {"tree": {
        "type": "object",
        "properties": {
            "left": {"anyOf": [{"type": "string", "maxLength": 5}, {"$ref": "#/properties/tree"}]},
            "right": {"anyOf": [
                {"$ref": "#/properties/tree/properties/left/anyOf/0"},
                {"$ref": "#/properties/tree/properties/left/anyOf/1"},
            ]},
        },
        "required": ["left", "right"],
    }},
    "required": ["tree"],
}  # fmt: skip


def test_a_tree_that_only_grows_is_closed_within_its_tokens():
    grammar = grammar_of(TREE)
    constraint, ending = Constraint(grammar), JsonCompletion(600, grammar.growth)
    tokens, closing = list(constraint.opening), None
    while closing is None:
        closing = finished(ending.instead(constraint, ord("{"), 600 - len(tokens)))
        if closing is None:
            tokens += [ord("{"), *constraint.accept(ord("{"))]
    text = bytes(tokens + closing).decode()
    assert 400 < len(text) <= 600
    jsonschema.validate(json.loads(text), TREE)


@pytest.mark.parametrize(
    ("pattern", "begun"),
    [
        ("[0-9]{2}", ""), ("foo", "fo"), ("foo", "fox"), ("x[0-9]{2}y", "x1"), ("^a.*bc$", "ab"), ("end$", "end of"),
        ("(foo|bar){2}", "foo"), (r"\w+@\w+", "me"), ("zebra|quagga", "z"), ("^[^ ]+ [^ ]+$", "a"), ("[aeiou]{3}.[0-9]", "ae"),
    ],
)  # fmt: skip
def test_a_pattern_that_stands_anywhere_is_satisfied_from_wherever_the_text_is(pattern, begun):
    schema = {"type": "string", "pattern": pattern}
    constraint = Constraint(grammar_of(schema))
    said = list(constraint.opening)
    for char in f'"{begun}'.encode()[len(said) :]:
        said += [char, *constraint.accept(char)]
    closing = finished(constraint.way_out(None, PATIENT))
    assert closing is not None
    jsonschema.validate(json.loads(bytes(said + closing)), schema)


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "number", "exclusiveMaximum": 0}, {"type": "number", "exclusiveMaximum": 0, "minimum": -0.5},
        {"type": "integer", "exclusiveMaximum": 0}, {"type": ["integer", "null"], "exclusiveMaximum": 0.0},
        {"type": "number", "exclusiveMaximum": 0, "maximum": -5}, {"type": "number", "exclusiveMaximum": 0, "minimum": -1e-9},
        {"$schema": "http://json-schema.org/draft-04/schema#", "type": "integer", "maximum": 0, "exclusiveMaximum": True},
    ],
)  # fmt: skip
def test_minus_zero_is_not_below_zero(schema):
    grammar = grammar_of(schema)
    matcher = grammar.matcher.deep_copy()
    for text in (b"-0", b"-0.0", b"-0e1"):
        attempt = matcher.deep_copy()
        whole = attempt.try_consume_tokens(list(text)) == len(text) and attempt.is_accepting()
        assert not whole, text
    jsonschema.validate(json.loads(babble(grammar, 9, 3)), schema)


@pytest.mark.parametrize(
    "name",
    ["date", "time", "date-time", "duration", "email", "hostname", "ipv4", "ipv6", "uri", "uuid"],
)
def test_a_format_is_no_obstacle_among_other_members(name: str):
    """The allowed bytes of an address look alike until its @ has come: an example says that it must."""
    text, members = {"type": "string", "format": name}, [f"m{n}" for n in range(8)]
    schema = {
        "type": "object",
        "properties": {
            member: {"anyOf": [text, {"type": "array", "items": text, "minItems": 2}]}
            for member in members
        },
        "required": members,
    }
    constraint = Constraint(grammar_of(schema))
    way = finished(constraint.way_out(None, Effort(2000, 20)))
    assert way is not None
    jsonschema.validate(json.loads(bytes(constraint.opening + way)), schema)


@pytest.mark.parametrize(
    ("number", "is_possible"),
    [
        ({"type": "integer", "exclusiveMinimum": 995, "exclusiveMaximum": 996}, False),
        ({"type": "integer", "exclusiveMinimum": 995, "exclusiveMaximum": 997}, True),
        ({"type": "integer", "minimum": 0.2, "maximum": 0.9}, False),
        ({"type": "integer", "minimum": 1, "maximum": 4, "multipleOf": 5}, False),
        ({"type": "integer", "minimum": 0, "maximum": 4, "multipleOf": 5}, True),
        ({"type": "integer", "minimum": 1, "maximum": 2, "multipleOf": 1.5}, False),
        ({"type": "integer", "minimum": 1, "maximum": 3, "multipleOf": 1.5}, True),
        ({"type": "number", "minimum": 0.1, "maximum": 0.4, "multipleOf": 0.5}, False),
        ({"type": "number", "minimum": 0.1, "maximum": 0.3, "multipleOf": 0.1}, True),
        ({"type": "number", "exclusiveMinimum": 0.1, "maximum": 0.4}, True),
        ({"type": ["integer", "number"], "exclusiveMinimum": 1, "exclusiveMaximum": 2}, True),
    ],
)
def test_a_tree_whose_only_leaf_is_no_number_is_refused(number: Any, is_possible: bool):
    """An answer could begin such a tree, and never end it."""
    tree = {
        "type": "object",
        "properties": {"next": {"anyOf": [{"$ref": "#/$defs/tree"}, number]}},
        "required": ["next"],
    }
    schema = {"$ref": "#/$defs/tree", "$defs": {"tree": tree}}
    if is_possible:
        jsonschema.validate(json.loads(babble(grammar_of(schema), 20, 1)), schema)
    else:
        with pytest.raises(SchemaUnsatisfiable):
            grammar_of(schema)


def test_a_text_that_would_not_end_is_closed_where_it_is():
    grammar = grammar_of({"type": "object", "properties": {"a": {"type": "string"}, "b": {"type": "integer"}},
                          "required": ["a", "b"], "additionalProperties": False})  # fmt: skip
    constraint, ending = Constraint(grammar), JsonCompletion(40, grammar.growth)
    tokens, closing = list(constraint.opening), None
    while closing is None:
        closing = finished(ending.instead(constraint, ord("x"), 40 - len(tokens)))
        if closing is None:
            tokens += [ord("x"), *constraint.accept(ord("x"))]
    text = bytes(tokens + closing).decode()
    assert len(text) == 40 and text == '{"a":"' + "x" * 26 + '","b":0}'


def test_a_number_that_would_not_end_is_ended_for_what_must_follow():
    properties = {"a": {"type": "number"}, "b": {"type": "boolean"}}
    grammar = grammar_of({"type": "object", "properties": properties, "required": ["a", "b"]})
    constraint = Constraint(grammar)
    said = list(constraint.opening)
    for char in b"100000"[: 6 if said else 0]:
        said += [char, *constraint.accept(char)]
    closing = finished(constraint.way_out(None))
    assert closing is not None
    assert json.loads(bytes(said + closing)) == {"a": 100000, "b": True}


@pytest.mark.parametrize(
    "begun", ["P", "PT", "P8100", "PT3000", "P1Y2", "P1Y2M3", "P1DT4H5", "P1DT4H5M6"]
)
def test_a_duration_is_closed_with_the_unit_that_its_number_lacks(begun: str):
    schema = {"type": "string", "format": "duration"}
    constraint = Constraint(grammar_of(schema))
    said = list(constraint.opening)
    for char in f'"{begun}'.encode()[len(said) :]:
        said += [char, *constraint.accept(char)]
    closing = finished(constraint.way_out(None))
    assert closing is not None
    text = json.loads(bytes(said + closing))
    assert text.startswith(begun) and len(text) > len(begun) - 1
    jsonschema.validate(text, schema, format_checker=jsonschema.FormatChecker())


def test_within_a_text_a_brace_is_text_and_at_the_start_of_an_object_it_is_none():
    grammar = grammar_of({"type": "object"})
    constraint = Constraint(grammar)
    (brace,) = constraint.opening or [ord("{")]
    assert brace == ord("{")
    if not constraint.opening:
        constraint.accept(brace)
    assert finished(constraint.way_out(None)) == [ord("}")]
    for char in b'"ke':
        constraint.accept(char)
    assert finished(constraint.way_out(None)) == [*b'":0}'] or finished(
        constraint.way_out(None)
    ) == [*b'":""}']


def test_where_there_is_no_room_an_answer_is_closed_beyond_its_tokens_as_soon_as_it_can_be():
    grammar = grammar_of({"type": "string", "minLength": 50, "maxLength": 60})
    constraint, ending = Constraint(grammar), JsonCompletion(20, grammar.growth)
    tokens = list(constraint.opening)
    for _ in range(20 - len(tokens)):
        assert finished(ending.instead(constraint, ord("x"), 20 - len(tokens))) is None, (
            "it leads to the end"
        )
        tokens += [ord("x"), *constraint.accept(ord("x"))]
    closing = finished(constraint.way_out(None))
    assert closing is not None
    assert len(json.loads(bytes(tokens + closing))) == 50


def test_what_never_ends_is_not_begun():
    endless = {"type": "object", "properties": {"a": {"$ref": "#/$defs/d"}}, "required": ["a"]}
    schema = {
        "type": "object",
        "properties": {"b": {"type": "integer"}, "c": {"$ref": "#/$defs/d"}},
        "$defs": {"d": endless},
    }
    grammar = grammar_of(schema)
    assert grammar.matcher.deep_copy().try_consume_tokens(list(b'{"c"')) < 4
    for seed in range(5):
        jsonschema.validate(json.loads(babble(grammar, 9, seed)), schema)


COMBINED = {
    "type": "object",
    "properties": {
        "a": {"anyOf": [{"type": "number"}, {"type": "string"}]},
        "b": {"enum": ["", "red", False]},
        "c": {"type": "array", "items": {"type": "boolean"}, "minItems": 9},
        "d": {"type": ["boolean", "integer"]},
        "e": {"type": "array", "items": {"type": ["null", "boolean"]}, "minItems": 9},
    },
    "required": ["a", "b", "c", "d", "e"],
    "additionalProperties": False,
}


def test_a_search_does_not_try_every_combination_of_the_values_before_it():
    twin_ = grammar_of(COMBINED).closing.twin()
    twin_.hear(b'{"a":')
    way = finished(twin_.way_out(b"", Effort(300, 20)))
    assert way is not None, "there are a million combinations, and most are of different lengths"
    jsonschema.validate(json.loads(b'{"a":' + way), COMBINED)


def test_lengths_are_told_apart_where_the_shortest_text_is_longer_than_what_is_alike():
    for schema in (
        {"type": "string", "minLength": 40}, {"type": "array", "items": {"const": 1}, "minItems": 30},
        {"type": "string", "pattern": "^(ab|cd){12}$"}, {"type": "string", "format": "uuid"},
    ):  # fmt: skip
        way = finished(grammar_of(schema).closing.twin().way_out(b"", PATIENT))
        assert way is not None
        jsonschema.validate(json.loads(way), schema)


def test_a_way_out_behind_a_long_answer_takes_no_copies_of_it():
    schema = {"type": "object", "properties": {"a": {"type": "array", "items": {"type": "integer"}},
              "b": {"type": "string", "pattern": "^[a-z]+@[a-z]+[.]org$"}}, "required": ["a", "b"]}  # fmt: skip
    twin_ = grammar_of(schema).closing.twin()
    said = b'{"a":[' + b"123," * 4000
    twin_.hear(said)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    way = finished(twin_.way_out(b"7", Effort(500, 60)))
    assert way is not None
    jsonschema.validate(json.loads(said + b"7" + way), schema)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 60_000, "each copy would have 1.4 MB"


def test_the_way_out_that_is_known_is_not_looked_for_again():
    twin_ = grammar_of(TREE).closing.twin()
    said = b'{"tree":{"left":"'
    twin_.hear(said)
    way = finished(twin_.way_out(b"x", PATIENT))
    assert way is not None
    twin_.hear(b"x" + way[:3])
    nothing = Effort(0, 0)
    assert finished(twin_.way_out(b"", nothing)) == way[3:]
    twin_.hear(b"x")
    assert finished(twin_.way_out(b"", nothing)) is None
