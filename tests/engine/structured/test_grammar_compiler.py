"""What is compiled is kept, for a while; what is not plainly harmless is tried in a process first."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest

from edgeagent.engine.batching.sequence import Request
from edgeagent.engine.structured.constraint import Grammar
from edgeagent.engine.structured.grammar import source_of
from edgeagent.engine.structured.grammar_compiler import (
    MAX_KEPT,
    MAX_USES,
    GrammarCompiler,
    try_out,
)
from edgeagent.engine.structured.output_spec import OutputSpec
from edgeagent.engine.tool_syntax import FAMILIES, PLAIN
from edgeagent.errors import InvalidParameter, QueueFull, SchemaUnsatisfiable
from edgeagent.types.generation import Form, GenerateSpec
from edgeagent.types.tools import Tool, ToolUse
from tests.conftest import wait_for


def form(text: str) -> OutputSpec:
    return OutputSpec(Form(kind="json_schema", text=text))


@pytest.fixture
def grammars() -> GrammarCompiler:
    def nobody(*_: object) -> None:
        raise AssertionError("nothing is compiled here")

    return GrammarCompiler(nobody, 1.0, 4, ready=nobody, refuse=nobody, too_many=nobody)  # type: ignore[arg-type]


def test_a_grammar_is_found_again_until_it_has_served_often(grammars):
    grammar = Grammar(None, None)
    grammars._keep(form("{}").key(), grammar)
    assert [grammars.find(form("{}")) for _ in range(MAX_USES)] == [grammar] * MAX_USES
    assert grammars.find(form("{}")) is None


def test_one_that_an_answer_got_stuck_in_is_compiled_anew(grammars):
    grammar = Grammar(None, None)
    grammars._keep(form("{}").key(), grammar)
    grammar.is_spoiled = True
    assert grammars.find(form("{}")) is None


def test_a_refusal_is_remembered_and_the_oldest_goes_first(grammars):
    grammars._keep(form("bad").key(), SchemaUnsatisfiable("no"))
    with pytest.raises(SchemaUnsatisfiable):
        grammars.find(form("bad"))
    for i in range(MAX_KEPT):
        grammars._keep(form(str(i)).key(), Grammar(None, None))
    assert grammars.find(form("bad")) is None
    assert grammars.find(OutputSpec(Form(kind="regex", text="0"))) is None, (
        "the kind is part of the key"
    )


def test_a_trial_passes_what_compiles_and_says_what_does_not():
    try_out(source_of(Form(kind="regex", text="[a-z]+")), 60)
    with pytest.raises(InvalidParameter, match="`pattern` at #"):
        try_out(form('{"type": "string", "pattern": "(?=a)"}').source(), 60)


def test_a_trial_ends_at_its_deadline():
    patterns = ",".join(f'{{"type": "string", "pattern": ".*a{{{i}}}b.*"}}' for i in range(1, 20))
    source = form(f'{{"allOf": [{patterns}]}}').source()
    assert not source.is_plain
    started = time.monotonic()
    with pytest.raises(InvalidParameter, match=r"more than 0\.2 s"):
        try_out(source, 0.2)
    assert time.monotonic() - started < 60


def using(parameters: dict[str, Any], **more: Any) -> OutputSpec:
    tools = [Tool(name="good"), Tool(name="lamp", parameters=parameters)]
    return OutputSpec(None, ToolUse(tools=tools, **more), PLAIN)


def test_what_calls_may_look_like_is_part_of_the_key():
    wanted = [
        form("{}"),
        using({}),
        using({"properties": {"a": {}}}),
        using({}, is_parallel=False),
        using({}, name="lamp"),
        using({})._replace(form=Form(kind="json_schema", text="{}")),
        using({})._replace(family=FAMILIES[0]),
    ]
    assert len({one.key() for one in wanted}) == len(wanted)
    assert using({}).key() == using({}).key()


def test_a_trial_of_tools_names_the_one_that_is_at_fault():
    pattern = {"type": "string", "pattern": "(?=a)"}
    with pytest.raises(InvalidParameter, match=r"Tool 'lamp'.*`pattern` at #/properties/room") as e:
        try_out(
            using({"properties": {"room": {"allOf": [pattern, {"minLength": 1}]}}}).source(), 60
        )
    assert e.value.param == "tools"
    patterns = [{"type": "string", "pattern": f".*a{{{i}}}b.*"} for i in range(1, 20)]
    source = using({"properties": {"room": {"allOf": patterns}}}).source()
    assert not source.is_plain
    with pytest.raises(InvalidParameter, match=r"more than 0\.2 s") as e:
        try_out(source, 0.2)
    assert e.value.param == "tools"


def asking(request_id: int, scope: str) -> Request:
    spec = GenerateSpec(prompts=[], scope=scope)
    return Request(request_id, spec, 0.0, output=form(f'{{"const": {request_id}}}'))


def test_schemas_of_each_key_are_compiled_in_turn(monkeypatch):
    order: list[int] = []
    refused: list[int] = []
    all_are_here, all_done = threading.Event(), threading.Event()

    def ready(request: Request) -> None:
        order.append(request.request_id)
        if len(order) == 7:
            all_done.set()

    grammars = GrammarCompiler(
        lambda: None, 1.0, 8,  # type: ignore[arg-type,return-value]
        ready=ready, refuse=lambda request_id, error: refused.append(request_id),
        too_many=lambda scope: QueueFull("too many"),
    )  # fmt: skip

    def compiled(*_: object) -> Grammar:
        all_are_here.wait(10)
        return Grammar(None, None)

    monkeypatch.setattr(grammars, "_compiled", compiled)
    try:
        assert grammars.put(asking(1, "a"))
        wait_for(lambda: grammars.pulses[0].silent_s() > 0)
        for request_id in range(2, 10):
            assert grammars.put(asking(request_id, "a"))
        assert not grammars.put(asking(10, "a")), "the line is full"
        cancelled = asking(20, "c")
        cancelled.is_cancelled = True
        assert grammars.put(cancelled) and grammars.put(asking(21, "b"))
        assert refused == [9, 8], "the newest of the key with the longest line made room"
        all_are_here.set()
        assert all_done.wait(10)
        assert order[:3] == [1, 2, 21] and refused == [9, 8, 20]
    finally:
        all_are_here.set()
        grammars.close()


def test_a_plain_schema_waits_for_no_intricate_one(monkeypatch):
    ready: list[int] = []
    trial_begun, trial_may_end = threading.Event(), threading.Event()

    def tried_out(*_: object) -> None:
        trial_begun.set()
        assert trial_may_end.wait(10)

    monkeypatch.setattr("edgeagent.engine.structured.grammar_compiler.try_out", tried_out)
    monkeypatch.setattr(
        "edgeagent.engine.structured.grammar_compiler.compile_source",
        lambda source, tokenizer: Grammar(None, None),
    )
    monkeypatch.setattr(
        "edgeagent.engine.structured.grammar_compiler.tokenizer_of", lambda vocabulary: None
    )

    def refuse(request_id: int, error: Exception) -> None:
        raise AssertionError(error)

    grammars = GrammarCompiler(
        lambda: None, 1.0, 8,  # type: ignore[arg-type,return-value]
        ready=lambda request: ready.append(request.request_id), refuse=refuse,
        too_many=lambda scope: QueueFull("too many"),
    )  # fmt: skip
    intricate = form('{"allOf": [{"type": "string", "pattern": "^a"}, {"type": "string"}]}')
    try:
        for request_id in (1, 2):
            spec = GenerateSpec(prompts=[], scope="a")
            assert grammars.put(Request(request_id, spec, 0.0, output=intricate))
        assert trial_begun.wait(10)
        assert grammars.put(asking(3, "b")) and grammars.put(asking(4, "a"))
        wait_for(lambda: ready == [3, 4])
        trial_may_end.set()
        wait_for(lambda: ready == [3, 4, 1, 2])
    finally:
        trial_may_end.set()
        grammars.close()
