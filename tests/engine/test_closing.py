"""JSON whose tokens run out is closed: on real grammars over a vocabulary of bytes, without a model."""

from __future__ import annotations

import json
from typing import Any

import jsonschema
import numpy as np
import pytest

from edgeagent.engine.closing import Ending
from edgeagent.engine.constrain import Constraint, Grammar, compile_source, source_of
from edgeagent.types import Form
from tests.engine.schema_corpus import good

SOME = dict(list(good().items())[::4])


def grammar_of(schema: Any) -> Grammar:
    from llguidance import LLTokenizer

    form = Form(kind="json_schema", text=json.dumps(schema))
    return compile_source(source_of(form), LLTokenizer("byte", slices=[]))


def babble(grammar: Grammar, max_new: int, seed: int) -> tuple[str, bool]:
    """A text of at most `max_new` tokens drawn at random, and whether it was closed."""
    constraint, ending, random = Constraint(grammar), Ending(max_new), np.random.default_rng(seed)
    tokens = list(constraint.opening)
    while not constraint.is_complete:
        bits = np.unpackbits(np.frombuffer(constraint.allowed(), np.uint8), bitorder="little")
        token = int(random.choice(np.flatnonzero(bits)))
        if token > 255:  # the end
            break
        closing = ending.instead(constraint, token, max_new - len(tokens))
        if closing is not None:
            return bytes(tokens + closing).decode(), True
        tokens += [token, *constraint.accept(token)]
        assert len(tokens) <= max_new, "there was a way out, and it was not taken"
    return bytes(tokens).decode(), False


@pytest.mark.parametrize("name", sorted(SOME))
def test_whatever_is_said_ends_within_its_tokens_and_validates(name: str):
    schema = SOME[name]
    grammar = grammar_of(schema)
    shortest = Constraint(grammar).way_out(None, 2000)
    assert shortest is not None, "every good schema has a short answer"
    for seed in (1, 2):
        text, _ = babble(grammar, 2 * len(shortest) + 60 + len(Constraint(grammar).opening), seed)
        jsonschema.validate(json.loads(text), schema)


def test_a_text_that_would_not_end_is_closed_where_it_is():
    grammar = grammar_of({"type": "object", "properties": {"a": {"type": "string"}, "b": {"type": "integer"}},
                          "required": ["a", "b"], "additionalProperties": False})  # fmt: skip
    constraint, ending = Constraint(grammar), Ending(40)
    tokens, closing = list(constraint.opening), None
    while closing is None:
        closing = ending.instead(constraint, ord("x"), 40 - len(tokens))
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
    closing = constraint.way_out(None, 20)
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
    closing = constraint.way_out(None, 12)
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
    assert constraint.way_out(None, 9) == [ord("}")]
    for char in b'"ke':
        constraint.accept(char)
    assert constraint.way_out(None, 9) == [*b'":0}'] or constraint.way_out(None, 9) == [*b'":""}']


def test_where_there_is_no_room_nothing_is_closed():
    grammar = grammar_of({"type": "string", "minLength": 50, "maxLength": 60})
    constraint = Constraint(grammar)
    assert constraint.way_out(None, 20) is None
    ending = Ending(20)
    assert all(ending.instead(constraint, ord("x"), room) is None for room in range(20, 0, -1))
