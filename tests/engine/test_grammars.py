"""What is compiled is kept, for a while; what is not plainly harmless is tried in a process first."""

from __future__ import annotations

import time

import pytest

from edgeagent.engine.constrain import Grammar, source_of
from edgeagent.engine.grammars import MAX_KEPT, MAX_USES, Grammars, _key, try_out
from edgeagent.errors import InvalidParameter, SchemaUnsatisfiable
from edgeagent.types import Form


def form(text: str) -> Form:
    return Form(kind="json_schema", text=text)


@pytest.fixture
def grammars() -> Grammars:
    def nobody(*_: object) -> None:
        raise AssertionError("nothing is compiled here")

    return Grammars(nobody, 1.0, 4, ready=nobody, refuse=nobody)  # type: ignore[arg-type]


def test_a_grammar_is_found_again_until_it_has_served_often(grammars):
    grammar = Grammar(None, None)
    grammars._keep(_key(form("{}")), grammar)
    assert [grammars.find(form("{}")) for _ in range(MAX_USES)] == [grammar] * MAX_USES
    assert grammars.find(form("{}")) is None


def test_one_that_an_answer_got_stuck_in_is_compiled_anew(grammars):
    grammar = Grammar(None, None)
    grammars._keep(_key(form("{}")), grammar)
    grammar.is_spoiled = True
    assert grammars.find(form("{}")) is None


def test_a_refusal_is_remembered_and_the_oldest_goes_first(grammars):
    grammars._keep(_key(form("bad")), SchemaUnsatisfiable("no"))
    with pytest.raises(SchemaUnsatisfiable):
        grammars.find(form("bad"))
    for i in range(MAX_KEPT):
        grammars._keep(_key(form(str(i))), Grammar(None, None))
    assert grammars.find(form("bad")) is None
    assert grammars.find(Form(kind="regex", text="0")) is None, "the kind is part of the key"


def test_a_trial_passes_what_compiles_and_says_what_does_not():
    try_out(source_of(Form(kind="regex", text="[a-z]+")), 5)
    with pytest.raises(InvalidParameter, match="`pattern` at #"):
        source = source_of(form('{"type": "string", "pattern": "(?=a)"}'))
        try_out(source, 5)


def test_a_trial_ends_at_its_deadline():
    patterns = ",".join(f'{{"type": "string", "pattern": ".*a{{{i}}}b.*"}}' for i in range(1, 20))
    source = source_of(form(f'{{"allOf": [{patterns}]}}'))
    assert not source.is_plain
    started = time.monotonic()
    with pytest.raises(InvalidParameter, match=r"more than 0\.2 s"):
        try_out(source, 0.2)
    assert time.monotonic() - started < 30
