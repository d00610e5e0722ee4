"""Tools as one grammar, where the markers of calls are special tokens of the vocabulary."""

from __future__ import annotations

import re
from typing import Any

import pytest

from edgeagent.engine.structured.constraint import Constraint, Grammar
from edgeagent.engine.structured.grammar import compile_source
from edgeagent.engine.structured.tool_grammar import (
    MAX_SCHEMAS_BYTES,
    arguments_schema,
    source_of_tools,
)
from edgeagent.engine.tool_syntax import FAMILIES
from edgeagent.engine.tool_syntax.tool_syntax import Family
from edgeagent.errors import InvalidParameter, SchemaViolated
from edgeagent.types.tools import Tool, ToolUse

LAMP: dict[str, Any] = {
    "properties": {"on": {"type": "boolean"}, "room": {"type": "string", "maxLength": 5}},
    "required": ["on", "room"],
}
USE = ToolUse(tools=[Tool(name="lamp", parameters=LAMP), Tool(name="time")])
MARKED = [family for family in FAMILIES if family.markers and family.name != "llama3"]


class Letters:
    """A vocabulary of all bytes, an end, and the markers of a family as special tokens."""

    bos_token_id = None
    eos_token_id = 256

    def __init__(self, family: Family) -> None:
        names = [*family.markers]
        self.tokens = [bytes([i]) for i in range(256)] + [b"</s>"]
        self.tokens += [name.encode() for name in names]
        self.special_token_ids = [*range(256, 257 + len(names))]
        self.markers = {name: 257 + i for i, name in enumerate(names)}

    def __call__(self, text: bytes) -> list[int]:
        return list(text)

    def spelled(self, text: str) -> list[int]:
        """Tokens of a text, markers as themselves."""
        parts = re.split("(" + "|".join(map(re.escape, self.markers)) + ")", text)
        return [
            token
            for part in parts
            for token in ([self.markers[part]] if part in self.markers else part.encode())
        ]


def compiled(family: Family, letters: Letters, **more: Any) -> Grammar:
    from llguidance import LLTokenizer
    from llguidance._tokenizer import TokenizerWrapper

    tokenizer = LLTokenizer(TokenizerWrapper(letters))
    use = ToolUse(tools=USE.tools, **more)
    return compile_source(source_of_tools(use, None, family, letters.markers), tokenizer)


def call_of(family: Family) -> str:
    return family.call_text("lamp", {"on": True, "room": "hall"})


@pytest.mark.parametrize("family", MARKED, ids=lambda family: family.name)
def test_markers_are_special_tokens_and_no_text(family):
    letters = Letters(family)
    grammar = compiled(family, letters)
    matcher = grammar.matcher.deep_copy()
    tokens = letters.spelled(call_of(family))
    assert any(token > 256 for token in tokens)
    assert matcher.try_consume_tokens(tokens) == len(tokens) and matcher.is_accepting()
    assert grammar.matcher.deep_copy().try_consume_tokens(list(call_of(family).encode())) == 0


@pytest.mark.parametrize("family", MARKED, ids=lambda family: family.name)
def test_a_grammar_takes_over_behind_a_marker(family):
    letters = Letters(family)
    constraint = Constraint(compiled(family, letters, is_parallel=False), is_later=True)
    assert constraint.opening == []
    opening, *rest = letters.spelled(call_of(family))
    assert constraint.begin(family.markers[0], "")
    forced = constraint.go_on(1)
    assert rest[: len(forced)] == forced and constraint.n_tokens == 1 + len(forced)
    i = len(forced)
    while i < len(rest):
        assert constraint.allowed()[rest[i] >> 3] >> (rest[i] & 7) & 1
        forced = constraint.accept(rest[i])
        assert rest[i + 1 : i + 1 + len(forced)] == forced
        i += 1 + len(forced)
    assert constraint.is_complete and constraint.n_tokens == 1 + len(rest)
    assert opening == letters.markers[family.markers[0]]


def test_a_grammar_says_when_it_cannot_bear_what_comes_with_the_opening():
    family = next(family for family in FAMILIES if family.name == "hermes")
    letters = Letters(family)
    grammar = compiled(family, letters)
    assert Constraint(grammar, is_later=True).begin("<tool_call>", '\n{"na')
    constraint = Constraint(grammar, is_later=True)
    assert not constraint.begin("<tool_call>", "\n[")
    assert bytes(constraint.go_on(3)).decode() == '\n{"name": "', (
        "it goes on as if that had not come"
    )


def test_a_call_is_checked_once_more_by_another_library():
    family = FAMILIES[-1]
    constraint = Constraint(compiled(family, Letters(family)))
    constraint.check_call("lamp", '{"on":true,"room":"hall"}')
    constraint.check_call("time", "{}")
    for name, arguments in (
        ("lamp", '{"on":1,"room":"hall"}'),
        ("lamp", '{"on":true}'),
        ("lamp", "{"),
        ("time", '{"zone":"UTC"}'),
        ("door", "{}"),
    ):
        with pytest.raises(SchemaViolated, match=name):
            constraint.check_call(name, arguments)


@pytest.mark.parametrize(
    ("parameters", "is_closed"),
    [
        ({}, True),
        ({"type": "object"}, True),
        ({"type": "object", "properties": {}, "required": []}, True),
        ({"properties": {"a": {}}}, False),
        ({"additionalProperties": {"type": "string"}}, False),
        ({"$ref": "#/$defs/a", "$defs": {"a": {}}}, False),
        ({"minProperties": 1}, False),
    ],
)
def test_a_tool_that_names_no_arguments_has_none(parameters, is_closed):
    schema = arguments_schema(parameters)
    assert schema["type"] == "object"
    assert (schema.get("additionalProperties") is False) == is_closed


@pytest.mark.parametrize("kind", ["string", ["object", "null"], 5, None, {}])
def test_arguments_are_an_object(kind):
    with pytest.raises(InvalidParameter, match="`type` at #"):
        arguments_schema({"type": kind})


def test_schemas_that_would_hold_up_everybody_elses_are_refused_before_any_is_read(monkeypatch):
    read = []
    monkeypatch.setattr("edgeagent.engine.structured.tool_grammar.checked_tool", read.append)
    wide = {f"p{i}": {"type": "string", "description": "d" * 100} for i in range(150)}
    tool = {"type": "object", "properties": wide}
    many = [Tool(name=f"t{i}", parameters=tool) for i in range(128)]
    family = next(family for family in FAMILIES if not family.markers)
    with pytest.raises(InvalidParameter, match=f"the bound is {MAX_SCHEMAS_BYTES}: offer fewer"):
        source_of_tools(ToolUse(tools=many), None, family, {})
    assert read == []


def test_only_the_tools_that_may_be_called_count():
    long = {"type": "object", "description": "d" * MAX_SCHEMAS_BYTES}
    use = ToolUse(tools=[Tool(name="long", parameters=long), *USE.tools], name="lamp")
    family = next(family for family in FAMILIES if not family.markers)
    assert [*source_of_tools(use, None, family, {}).tools] == ["lamp"]
