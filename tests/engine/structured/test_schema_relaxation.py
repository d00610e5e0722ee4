"""Schemas of tools that are not strict: what is enforced, what is noted, and that calls come all the same."""

# ruff: noqa: E501
from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from edgeagent.engine.batching.time_slices import finished
from edgeagent.engine.structured.answer_checks import AnswerCheck
from edgeagent.engine.structured.byte_grammar import Effort
from edgeagent.engine.structured.constraint import Constraint, Grammar
from edgeagent.engine.structured.grammar import compile_source
from edgeagent.engine.structured.grammar_compiler import complaint_of, try_out
from edgeagent.engine.structured.output_spec import OutputSpec
from edgeagent.engine.structured.schema_bounds import parsed
from edgeagent.engine.structured.schema_relaxation import checked_loosely, loosened
from edgeagent.engine.structured.schema_repair import RepairNote, repaired, translated
from edgeagent.engine.structured.tool_grammar import checked_tool
from edgeagent.engine.tool_syntax import PLAIN
from edgeagent.errors import BadRequest, InvalidParameter, SchemaViolated
from edgeagent.types.generation import Form
from edgeagent.types.tools import Tool, ToolUse
from tests.engine.odd_schemas import ODD, of

TIMEOUT_S = 10


def made(wanted: OutputSpec) -> Grammar:
    """Compiled as the worker compiles, over bytes."""
    from llguidance import LLTokenizer

    def compiled(source: Any) -> Grammar:
        if not source.is_plain:
            try_out(source, TIMEOUT_S)
        return compile_source(source, LLTokenizer("byte", slices=[]))

    source = wanted.source()
    try:
        return compiled(source)
    except BadRequest:
        if not source.is_loose:
            raise
    return compiled(wanted.source(lambda found: complaint_of(found, TIMEOUT_S)))


def wanted(parameters: dict[str, Any], *, is_strict: bool = False) -> OutputSpec:
    tool = Tool(name="f", parameters=parameters, is_strict=is_strict)
    return OutputSpec(None, ToolUse(tools=[tool], choice="required", is_parallel=False), PLAIN)


def call_of(grammar: Grammar, seed: int = 1) -> dict[str, Any]:
    """The arguments of a call of random bytes, closed when there are too many, after their check."""
    constraint, random = Constraint(grammar), np.random.default_rng(seed)
    tokens = list(constraint.opening)
    while not constraint.is_complete:
        if len(tokens) > 90:
            closing = finished(constraint.way_out(None, Effort(8000, 20)))
            assert closing is not None, bytes(tokens)
            tokens += closing
            break
        bits = np.unpackbits(np.frombuffer(constraint.allowed(), np.uint8), bitorder="little")
        token = int(random.choice(np.flatnonzero(bits)))
        if token > 255:
            break
        tokens += [token, *constraint.accept(token)]
    called = json.loads(bytes(tokens), parse_float=lambda text: min(float(text), 1e300))
    assert called["name"] == "f"
    constraint.check_call("f", json.dumps(called["arguments"]))
    found: dict[str, Any] = called["arguments"]
    return found


@pytest.mark.parametrize("name", sorted(ODD))
def test_an_odd_schema_is_enforced_as_far_as_it_can_be_and_the_rest_is_noted(name):
    parameters, keywords = ODD[name]
    grammar = made(wanted(parameters))
    noted = {note.keyword for note in grammar.notes if "is not checked" not in note.note}
    noted = {k for k in noted if k or keywords == {""}}
    assert noted == keywords, grammar.notes
    assert all(note.tool == "f" and note.path.startswith("#") for note in grammar.notes)
    assert isinstance(call_of(grammar), dict)


def test_there_are_enough_odd_ones():
    assert len(ODD) >= 60


@pytest.mark.parametrize(
    "name", sorted(name for name, (_, noted) in ODD.items() if "" not in noted)
)
def test_nothing_is_enforced_beyond_what_was_asked_for(name):
    """What is enforced and noted together is the whole schema: a value of the whole passes."""
    parameters, _ = ODD[name]
    found = checked_tool(Tool(name="f", parameters=parameters))
    assert found.whole is not None
    AnswerCheck(found, "f")


@pytest.mark.parametrize(
    ("parameters", "good", "bad"),
    [
        (of({"type": "STRING", "format": "entity_id", "enum": ["light.hall", "light.bed"]}), '{"a":"light.hall"}', '{"a":"light"}'),
        (of({"type": "array", "items": {"enum": [1, 2]}, "uniqueItems": True}), '{"a":[1,2]}', '{"a":[3]}'),
        (of({"type": "string", "nullable": True}), '{"a":null}', '{"a":1}'),
        (of({"type": "object", "properties": {"k": {"type": "integer"}}, "required": ["k"], "not": {"required": ["z"]}}), '{"a":{"k":1}}', '{"a":{}}'),
        (of({"type": "integer", "minimum": "1", "maximum": 5, "exclusiveMaximum": True}), '{"a":4}', '{"a":5}'),
        (of({"type": "string", "pattern": r"\A[a-z]{2}\Z"}), '{"a":"ab"}', '{"a":"abc"}'),
        (of({"type": "array", "items": [{"type": "string"}], "additionalItems": False, "minItems": 1}), '{"a":["x"]}', '{"a":["x",1]}'),
        (of({"oneOf": [{"type": "integer"}, {"type": "number"}]}), '{"a":1.5}', '{"a":"1"}'),
        (of({"$ref": "#/$defs/d", "nullable": True}, **{"$defs": {"d": {"type": "boolean"}}}), '{"a":true}', '{"a":0}'),
    ],
)  # fmt: skip
def test_what_can_be_held_is_held(parameters, good, bad):
    grammar = made(wanted(parameters))

    def fits(arguments: str) -> bool:
        text = f'{{"name":"f","arguments":{arguments}}}'.encode()
        matcher = grammar.matcher.deep_copy()
        return matcher.try_consume_tokens(list(text)) == len(text) and matcher.is_accepting()

    assert fits(good) and not fits(bad)
    with pytest.raises(SchemaViolated):
        Constraint(grammar).check_call("f", bad)


@pytest.mark.parametrize(
    ("schema", "lacking", "keyword"),
    [
        ({"type": "array", "items": {"type": "integer"}, "uniqueItems": True}, [1, 1], "uniqueItems"),
        ({"type": "string", "not": {"enum": ["no"]}}, "no", "not"),
        ({"type": "object", "propertyNames": {"maxLength": 2}}, {"long": 1}, "propertyNames/maxLength"),
        ({"oneOf": [{"type": "integer"}, {"type": "number"}]}, 1, "oneOf"),
        ({"type": "object", "properties": {"b": {}, "c": {}}, "minProperties": 1}, {}, "minProperties"),
        ({"type": "array", "contains": {"const": 7}}, [1], "contains"),
    ],
)  # fmt: skip
def test_a_call_that_lacks_what_was_not_enforced_is_told_with_a_note(schema, lacking, keyword):
    constraint = Constraint(made(wanted(of(schema))))
    n_before = len(constraint.notes)
    constraint.check_call("f", json.dumps({"a": lacking}))
    (told,) = constraint.notes[n_before:]
    assert (told.tool, f"{told.path}/{told.keyword}") == ("f", f"#/properties/a/{keyword}")
    assert "does not satisfy" in told.note


def test_what_is_wholly_enforced_has_no_notes():
    assert made(wanted(of({"type": "string", "enum": ["a", "b"]}))).notes == []
    assert made(wanted({})).notes == []


@pytest.mark.parametrize(
    "name", ["not", "home assistant's entity", "nullable text", "look-ahead", "a reference to a URL", "an unknown type", "overlapping oneOf"]
)  # fmt: skip
def test_a_strict_tool_is_refused_with_the_keyword_and_its_path(name):
    with pytest.raises(BadRequest, match=r"Tool 'f'.*#") as caught:
        made(wanted(ODD[name][0], is_strict=True))
    assert caught.value.param == "tools"


@pytest.mark.parametrize(
    ("parameters", "said"),
    [
        ({"properties": {f"p{i}": {} for i in range(600)}}, "600"),
        ({"enum": ["x" * 70_000]}, "bytes"),
        (json.loads('{"properties":{"a":' * 40 + "{}" + "}}" * 40), "nested"),
    ],
)
def test_the_bounds_on_size_and_depth_hold_for_every_schema(parameters, said):
    with pytest.raises(InvalidParameter, match=f"Tool 'f'.*{said}"):
        checked_tool(Tool(name="f", parameters=parameters))


def test_a_form_that_is_not_strict_is_loose_likewise():
    schema = of({"type": "string", "format": "entity_id"})
    loose = Form(kind="json_schema", text=json.dumps(schema))
    grammar = made(OutputSpec(loose))
    assert [(n.tool, n.path, n.keyword) for n in grammar.notes] == [
        (None, "#/properties/a", "format")
    ]
    with pytest.raises(BadRequest, match="entity_id"):
        OutputSpec(Form(kind="json_schema", text=loose.text, is_strict=True)).source()


def test_notes_name_where_the_client_wrote_it():
    notes = loosened(
        {"properties": {"a/b": {"items": [{"uniqueItems": True}, {"anyOf": [{"not": {}}]}]}}}
    ).notes
    assert [(note.path, note.keyword) for note in notes] == [
        ("#/properties/a~1b/prefixItems/0", "uniqueItems"),
        ("#/properties/a~1b/prefixItems/1/anyOf/0", "not"),
    ]


def test_notes_are_few_however_much_is_wrong():
    schema = {"properties": {f"p{i}": {"type": "string", "format": "x" * 50} for i in range(500)}}
    assert len(checked_loosely(schema).notes) <= 64


def test_a_repaired_schema_is_valid_whatever_stands_in_it():
    from edgeagent.engine.structured.answer_checks import check_meta

    odd: list[Any] = [None, True, 5, -1, 2.5, "x", "5", [], {}, ["a"], [None], {"a": None}, [{}]]
    keys = [
        "type", "enum", "const", "properties", "required", "items", "prefixItems", "anyOf", "oneOf", "allOf", "not", "if",
        "additionalProperties", "patternProperties", "minLength", "maximum", "exclusiveMinimum", "multipleOf", "pattern", "format",
        "$ref", "$defs", "nullable", "uniqueItems", "dependencies", "dependentRequired", "propertyNames", "contains", "$schema",
    ]  # fmt: skip
    for key in keys:
        for value in odd:
            check_meta(repaired({key: value})[0])
            check_meta(repaired({"properties": {"a": {key: value}}})[0])


def test_patterns_are_translated_outside_their_classes_only():
    assert translated(r"\A[?+\Z]a?+\Z") == r"^[?+\Z]a?\z"
    assert repaired({"$ref": "#"})[1] == [
        RepairNote("#", "$ref", "leads round in a circle: any value passes")
    ]
    assert parsed("{}") == {}
