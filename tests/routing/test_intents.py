"""From a request to the question that an assistant model answers."""

from __future__ import annotations

from typing import Any

import pytest

from edgeagent.catalog.assistant_intents import Assistant, SlottedTool
from edgeagent.errors import Forbidden, InvalidParameter
from edgeagent.routing.intents import UnsuitedRequest, make_intent_question
from edgeagent.types.generation import Form, GenerateSpec
from edgeagent.types.intents import Candidate, Slot
from edgeagent.types.prompt import Prompt
from edgeagent.types.tools import Tool, ToolUse

ASSISTANT = Assistant(
    domains={"home": ("light", "door"), "music": ("Play", "door")},
    tools={"Play": SlottedTool(("artist", "album"), "Play music")},
    thresholds={"home": 0.7, "all": 0.4},
)
USER = {"role": "user", "content": "play"}


def intent_question(
    *tools: Tool, domain: str | None = None, allowed: Any = None, **options: Any
) -> Any:
    messages = options.pop("messages", [USER])
    use = {key: options.pop(key) for key in ("choice", "name") if key in options}
    spec = GenerateSpec(
        prompts=[Prompt(messages=messages, prefill=options.pop("prefill", ""))],
        tools=ToolUse(tools=list(tools), **use) if tools or use else None,
        **options,
    )
    return make_intent_question(spec, ASSISTANT, model_id="m", domain=domain, allowed=allowed)


def names(**options: Any) -> list[str]:
    return [candidate.name for candidate in intent_question(**options).candidates]


def play(**parameters: Any) -> Tool:
    return Tool(name="Play", parameters={"type": "object"} | parameters)


def slots(tool: Tool) -> list[Slot]:
    (candidate,) = intent_question(tool).candidates
    assert (candidate.name, candidate.has_slots) == ("Play", True)
    return candidate.slots


def test_a_domain_has_its_names_and_its_threshold_and_none_has_all():
    assert names(domain="home") == ["light", "door"]
    assert names() == ["light", "door", "Play"]
    found = [intent_question(domain=domain).threshold for domain in ("home", "music", None)]
    assert found == [0.7, 0.5, 0.4]


def test_the_whole_of_an_intent_is_offered_where_the_client_says_nothing():
    assert intent_question(domain="music").candidates == [
        Candidate("Play", True, [Slot("artist"), Slot("album")]),
        Candidate("door"),
    ]


def test_a_key_narrows_what_is_offered_and_one_without_any_is_refused():
    assert names(allowed=frozenset({"door", "Play", "other"})) == ["door", "Play"]
    with pytest.raises(Forbidden):
        intent_question(allowed=frozenset({"other"}))


@pytest.mark.parametrize(
    ("parameters", "expected"),
    [
        ({}, []),
        ({"properties": {"artist": {}}}, [Slot("artist")]),
        ({"properties": {"artist": {"type": "string"}, "year": {"type": "integer"}}}, [Slot("artist")]),
        (
            {"properties": {"artist": {"type": "string"}, "album": {"type": ["string", "null"]}},
             "required": ["artist", "album"], "additionalProperties": False},
            [Slot("artist", "required"), Slot("album", "nullable")],
        ),
    ],
    ids=["none", "any", "one of two", "strict"],
)  # fmt: skip
def test_a_client_s_schema_says_which_slots_there_are(parameters, expected):
    assert slots(play(**parameters)) == expected


@pytest.mark.parametrize(
    "parameters",
    [
        {"properties": {"artist": {"type": "integer"}}},
        {"properties": {"artist": {"type": "string", "enum": ["bach"]}}},
        {"properties": {"artist": True}},
        {"properties": {}, "required": ["artist"]},
        {"properties": {"year": {}}, "required": ["year"]},
        {"properties": [], "required": []},
        {"properties": {"artist": {}}, "minProperties": 1},
    ],
    ids=["number", "enum", "anything", "not described", "unknown", "no object", "keyword"],
)
def test_a_schema_that_a_call_might_not_satisfy_is_refused(parameters):
    with pytest.raises(UnsuitedRequest, match="Tool 'Play'"):
        intent_question(play(**parameters))


@pytest.mark.parametrize(
    "options",
    [
        {"form": Form(kind="json_schema", text="{}")},
        {"logprobs": 0},
        {"prefill": "{"},
        {"name": "Pla"},
    ],
    ids=["form", "logprobs", "beginning", "name"],
)
def test_what_is_not_answered_by_a_call_is_refused(options):
    with pytest.raises(UnsuitedRequest):
        intent_question(**options)


def test_a_required_call_leaves_no_way_out_and_a_named_one_no_choice():
    assert intent_question().may_abstain
    assert not intent_question(choice="required").may_abstain
    named = intent_question(choice="required", name="door")
    assert ([c.name for c in named.candidates], named.may_abstain) == (["door"], False)


def test_the_last_words_of_the_user_are_the_question():
    messages = [USER, {"role": "assistant", "content": "?"}, {"role": "user", "content": "open"}]
    assert intent_question(messages=messages).text == "open"
    with pytest.raises(InvalidParameter, match="there is none"):
        intent_question(messages=[{"role": "system", "content": "You are kind."}])


def test_results_that_come_last_are_the_answer():
    results = [{"role": "tool", "content": text} for text in ("one", "two")]
    assert intent_question(messages=[USER, *results]).reply == "one\ntwo"
    assert intent_question(messages=[USER, *results, USER]).reply is None
