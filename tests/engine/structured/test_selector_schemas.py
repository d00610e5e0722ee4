"""Fields of Home Assistant's scripts hold a call as far as they can, and AI tasks an answer."""

from __future__ import annotations

import json

import pytest

from tests.engine.odd_schemas import of
from tests.engine.selector_schemas import SELECTORS, script
from tests.engine.structured.test_schema_relaxation import call_of, made, wanted


@pytest.mark.parametrize("name", SELECTORS)
def test_a_field_of_a_script_takes_its_value_and_says_what_is_not_enforced(name: str):
    field = SELECTORS[name]
    grammar = made(wanted(of(field.schema)))
    assert {note.keyword for note in grammar.notes} == field.noted, grammar.notes
    text = f'{{"name":"f","arguments":{json.dumps({"a": field.value}, separators=(",", ":"))}}}'
    matcher = grammar.matcher.deep_copy()
    assert matcher.try_consume_tokens(list(text.encode())) == len(text), name
    assert matcher.is_accepting()


def test_a_script_with_every_kind_of_field_can_be_called():
    grammar = made(wanted(script()))
    arguments = call_of(grammar)
    assert {"entity", "several_of_select"} <= set(arguments)
