"""What a request may say of tools, and how calls are written: without a model."""

# ruff: noqa: E501
from __future__ import annotations

import json
from typing import Any

import msgspec
import openai
import pytest
from openai.lib.streaming.chat._completions import ChatCompletionStreamState
from openai.types.chat import ChatCompletionChunk

from edgeagent.api.http.tool_calls import MAX_TOOLS, CallCollector, merged, tool_use
from edgeagent.api.openai.chat import ChatWriter
from edgeagent.errors import Forbidden, InvalidParameter
from edgeagent.routing.decision import Decision
from edgeagent.types.answer import CallDelta, TokenChunk
from edgeagent.types.caller import LOCAL
from edgeagent.types.tools import Tool
from tests.conftest import TALES_CHAT, DaemonProcess


@pytest.fixture(scope="module")
def client(tales_client: openai.OpenAI) -> openai.OpenAI:
    return tales_client


ASK: list[Any] = [{"role": "user", "content": "Light, please."}]
LAMP = {
    "type": "function",
    "function": {
        "name": "lamp",
        "parameters": {
            "type": "object",
            "properties": {"on": {"type": "boolean"}},
            "required": ["on"],
        },
    },
}


def function(name: Any, **more: Any) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, **more}}


def call(arguments: Any, call_id: Any = "call_1", name: Any = "lamp") -> dict[str, Any]:
    return {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}}


def assistant(*calls: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": None, "tool_calls": list(calls)}


def refused(client: openai.OpenAI, **body: Any) -> openai.BadRequestError:
    options: dict[str, Any] = {"model": TALES_CHAT, "messages": ASK, "max_tokens": 1}
    with pytest.raises(openai.BadRequestError) as caught:
        client.post("/chat/completions", body=options | body, cast_to=object)
    return caught.value


@pytest.mark.parametrize(
    ("tools", "param"),
    [
        ("lamp", "tools"),
        ([{"type": "custom", "custom": {"name": "a b"}}], "tools.0.custom.name"),
        ([{"type": "custom"}], "tools.0.custom"),
        ([{"type": "function"}], "tools.0.function"),
        ([LAMP, {"type": "web", "function": {"name": "x"}}], "tools"),
        ([LAMP, {"function": {"name": "x"}}], "tools.1"),
        ([function("a b")], "tools.0.function.name"),
        ([function("")], "tools.0.function.name"),
        ([function("x" * 65)], "tools.0.function.name"),
        ([function("lamp.on")], "tools.0.function.name"),
        ([function(5)], "tools.0.function.name"),
        ([function("x", parameters=[])], "tools.0.function.parameters"),
        ([function("x", parameters={"maximum": 1 << 70}, strict=True)], "tools"),
        ([function("x", surprise=1)], "tools.0.function.surprise"),
        ([LAMP, function("door"), LAMP], "tools"),
        ([function(f"f{i}") for i in range(MAX_TOOLS + 1)], "tools"),
    ],
)  # fmt: skip
def test_bad_tools_are_a_400_that_names_the_place(client, tools, param):
    error = refused(client, tools=tools)
    assert (error.param or "").startswith(param), error.message


@pytest.mark.parametrize(
    "body",
    [
        {"tool_choice": "required"},
        {"tool_choice": {"type": "function", "function": {"name": "lamp"}}},
        {"tool_choice": "always", "tools": [LAMP]},
        {"tool_choice": {"type": "function", "function": {"name": "door"}}, "tools": [LAMP]},
        {"tool_choice": {"type": "function"}, "tools": [LAMP]},
        {"tool_choice": {"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": [function("door")]}}, "tools": [LAMP]},
        {"tool_choice": 5, "tools": [LAMP]},
    ],
)  # fmt: skip
def test_a_choice_that_cannot_be_is_a_400_that_names_it(client, body):
    assert (refused(client, **body).param or "").startswith("tool_choice")


@pytest.mark.parametrize(
    ("messages", "param"),
    [
        ([assistant(call("{on: true"))], "messages.1.tool_calls.0.function.arguments"),
        ([assistant(call("{}"), call("[]", "call_2"))], "messages.1.tool_calls.1.function.arguments"),
        ([assistant(call('{"a":NaN}'))], "messages.1.tool_calls.0.function.arguments"),
        ([assistant(call("[" * 5000))], "messages.1.tool_calls.0.function.arguments"),
        ([assistant(call({"on": True}))], "messages.1.tool_calls.0.function.arguments"),
        ([assistant(call("{}", ""))], "messages.1.tool_calls.0.id"),
        ([assistant(call("{}", name=""))], "messages.1.tool_calls.0.function.name"),
        ([assistant({"id": "x", "type": "custom"})], "messages.1.tool_calls.0"),
        ([{"role": "tool", "content": "on", "tool_call_id": "call_1"}], "messages.1.tool_call_id"),
        ([assistant(call("{}")), {"role": "tool", "content": "on", "tool_call_id": "call_2"}], "messages.2.tool_call_id"),
        ([assistant(call("{}")), {"role": "tool", "content": "on"}], "messages.2"),
        ([{"role": "user", "content": "x", "tool_calls": [call("{}")]}], "messages.1"),
        ([{"role": "function", "name": "lamp", "content": "on"}], "messages.1.role"),
    ],
)  # fmt: skip
def test_a_history_that_cannot_be_is_a_400_that_names_the_place(client, messages, param):
    error = refused(client, messages=[*ASK, *messages], tools=[LAMP])
    assert (error.param or "").startswith(param), error.message


@pytest.mark.parametrize(
    "given",
    [{"messages": []}, {"tools": []}, {"a b": 1}, {"x": 1 << 70}, {"x": "y" * 20_000}, {str(i): i for i in range(17)}, "x"],
)  # fmt: skip
def test_what_a_template_must_not_be_told_is_a_400(client, given):
    assert refused(client, chat_template_kwargs=given).param == "chat_template_kwargs"


def test_functions_are_refused_with_what_to_send_instead(client):
    assert "`tools`" in refused(client, functions=[{"name": "f"}]).message
    assert "`tool_choice`" in refused(client, function_call={"name": "f"}).message


def test_a_tool_that_the_key_does_not_list_is_a_403():
    caller = replace_tools({"lamp"})
    assert tool_use([Tool(name="lamp")], caller) is not None
    with pytest.raises(Forbidden, match="'door'"):
        tool_use([Tool(name="lamp"), Tool(name="door")], caller)
    with pytest.raises(Forbidden):
        tool_use([Tool(name="door")], caller, choice="none")


def replace_tools(tools: set[str]) -> Any:
    return msgspec.structs.replace(LOCAL, tools=frozenset(tools))


@pytest.mark.parametrize("name", ["", "a b", "x" * 129, "a,b", "é", 'a"', "a\n"])
def test_a_name_is_checked_whichever_way_it_comes(name):
    with pytest.raises(InvalidParameter, match="name"):
        tool_use([Tool(name=name)], LOCAL)


def test_a_choice_says_what_the_engine_is_told():
    tools = [Tool(name="lamp"), Tool(name="door")]
    auto, required = tool_use(tools, LOCAL), tool_use(tools, LOCAL, choice="required")
    named = tool_use(tools, LOCAL, name="door", is_parallel=False)
    only = tool_use(tools, LOCAL, choice="required", only=["door"])
    assert auto and (auto.choice, auto.name, auto.is_parallel) == ("auto", None, True)
    assert required and (required.choice, required.tools) == ("required", tools)
    assert named and (named.choice, named.name, named.is_parallel) == ("required", "door", False)
    assert only and [tool.name for tool in only.tools] == ["door"]
    assert tool_use(tools, LOCAL, choice="none") is None
    assert tool_use([], LOCAL) is None
    with pytest.raises(InvalidParameter):
        tool_use([], LOCAL, choice="required")


PIECES = [
    TokenChunk(0, "", reasoning="Hm. "),
    TokenChunk(0, "", reasoning="Light."),
    TokenChunk(1, "I will."),
    TokenChunk(0, "", calls=[CallDelta(0, "", "lamp")]),
    TokenChunk(0, "", calls=[CallDelta(0, '{"on":'), CallDelta(0, "true}"), CallDelta(1, "{}", "door")]),
    TokenChunk(1, "", calls=[CallDelta(0, "{}", "door")]),
    TokenChunk(0, "", "tool_calls"),
    TokenChunk(1, "", "tool_calls"),
]  # fmt: skip


def streamed(pieces: list[TokenChunk]) -> list[dict[str, Any]]:
    writer = ChatWriter(Decision("m", "named"), wants_usage=False)
    raw = b"".join(writer.events([piece]) for piece in pieces)
    return [json.loads(line[6:]) for line in raw.split(b"\n\n") if line]


def test_the_sdk_adds_up_streamed_calls():
    state = ChatCompletionStreamState()
    events = streamed(PIECES)
    for event in events:
        state.handle_chunk(ChatCompletionChunk.model_validate(event))
    first, second = state.get_final_completion().choices
    assert first.message.content is None and second.message.content == "I will."
    assert first.message.reasoning_content == "Hm. Light."
    called = [(c.function.name, c.function.arguments) for c in first.message.tool_calls]
    assert called == [("lamp", '{"on":true}'), ("door", "{}")]
    assert [c.function.name for c in second.message.tool_calls] == ["door"]
    ids = [c.id for c in (*first.message.tool_calls, *second.message.tool_calls)]
    assert len(set(ids)) == 3 and all(len(i) == 29 and i.startswith("call_") for i in ids)
    assert first.finish_reason == second.finish_reason == "tool_calls"


def test_the_first_delta_of_a_call_says_who_and_later_ones_only_what():
    deltas = [c["delta"] for event in streamed(PIECES) for c in event["choices"] if c["index"] == 0]
    calls = [delta["tool_calls"] for delta in deltas if "tool_calls" in delta]
    seen: set[int] = set()
    for (piece,) in calls:
        if piece["index"] in seen:
            assert piece.keys() == {"index", "function"}
            assert piece["function"].keys() == {"arguments"}
        else:
            assert piece.keys() == {"index", "id", "type", "function"}
            assert piece["function"].keys() == {"name", "arguments"}
            assert piece["function"]["arguments"] == ""
        seen.add(piece["index"])
    assert seen == {0, 1}
    assert [delta for delta in deltas if "role" in delta] == deltas[:1]


def test_a_whole_answer_has_the_ids_that_its_stream_had():
    calls = CallCollector()
    streamed_id = calls.id_of(0, 1)
    calls.add(0, [CallDelta(0, "{", "a"), CallDelta(1, "{}", "b"), CallDelta(0, "}")])
    assert [(c.name, c.arguments) for c in calls.of(0)] == [("a", "{}"), ("b", "{}")]
    assert calls.of(0)[1].id == streamed_id and calls.of(1) == []


def test_neighbouring_pieces_of_a_call_leave_as_one():
    pieces = [CallDelta(0, "", "a"), CallDelta(0, "{"), CallDelta(0, "}"), CallDelta(1, "{}", "b")]
    assert merged(pieces) == [CallDelta(0, "{}", "a"), CallDelta(1, "{}", "b")]


def test_the_openapi_page_shows_tools(tales_daemon: DaemonProcess, client):
    page = client.with_options(base_url=tales_daemon.url).get(
        "/schema/openapi.json", cast_to=object
    )
    body = page["paths"]["/v1/chat/completions"]["post"]["requestBody"]
    fields = body["content"]["application/json"]["schema"]["properties"]
    assert {"tools", "tool_choice", "parallel_tool_calls"} <= fields.keys()
