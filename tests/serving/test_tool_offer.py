"""Custom tools, namespaces and tools that run elsewhere: what Codex and other agents send."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx
import openai
import pytest
from openai.lib.streaming.responses._responses import ResponseStreamState
from openai.types.responses import ResponseStreamEvent
from pydantic import TypeAdapter, ValidationError

from edgeagent.api.openai.chat import ChatWriter
from edgeagent.api.openai.schemas.chat import ChatRequest
from edgeagent.api.openai.schemas.responses import ResponseRequest
from edgeagent.errors import InvalidParameter, UnsupportedParameter
from edgeagent.routing.decision import Decision
from edgeagent.serving.item_messages import messages_of
from edgeagent.serving.response_builder import ResponseBuilder
from edgeagent.serving.tool_offer import CustomInput, ToolOffer, arguments_of, full_name
from edgeagent.types.answer import CallDelta, TokenChunk
from edgeagent.types.caller import LOCAL
from edgeagent.types.tools import Tool
from tests.conftest import TALES_CHAT, DaemonProcess

NOW = {"type": "function", "name": "now", "parameters": {"type": "object", "properties": {}}}
PATCH = {"type": "custom", "name": "apply_patch", "description": "Change files"}
CRM = {"type": "namespace", "name": "crm", "description": "", "tools": [
    {"type": "function", "name": "find", "defer_loading": True, "output_schema": {}, "async": False},
    {"type": "custom", "name": "query", "format": {"type": "grammar", "syntax": "lark", "definition": "x"}},
]}  # fmt: skip
HOSTED = [
    {"type": "web_search"}, {"type": "web_search_preview_2025_03_11", "search_context_size": "low"},
    {"type": "mcp", "server_label": "a"},
    {"type": "image_generation", "quality": "low"}, {"type": "local_shell"}, {"type": "shell"},
    {"type": "code_interpreter", "container": {"type": "auto"}}, {"type": "computer_use_preview"},
    {"type": "apply_patch"}, {"type": "tool_search"}, {"type": "programmatic_tool_calling"},
]  # fmt: skip


def asked(**body: Any) -> ResponseRequest:
    return ResponseRequest.model_validate({"input": "hi"} | body)


def test_a_bound_of_more_than_64_bits_is_rounded_unless_the_tool_is_strict():
    bounds = {"type": "integer", "minimum": -(2**80), "maximum": 2**64 - 1}
    tool = NOW | {
        "parameters": {"type": "object", "properties": {"a": bounds, "b": {"enum": [2**70, "x"]}}}
    }
    use = asked(tools=[tool | {"strict": False}]).tool_use(LOCAL)
    assert use is not None
    properties = use.tools[0].parameters["properties"]
    assert properties["a"] == bounds | {"minimum": -(2.0**80)}
    assert properties["b"]["enum"] == [2.0**70, "x"]
    with pytest.raises(InvalidParameter, match="tool 'now' hold a number of more than 64 bits"):
        asked(tools=[tool | {"strict": True}]).tool_use(LOCAL)


def test_a_model_sees_functions_and_notes_say_what_was_left_out():
    offer = asked(tools=[NOW, PATCH, CRM, *HOSTED]).tool_offer()
    assert [tool.name for tool in offer.tools] == [
        "now", "apply_patch", "crm__find", "crm__query",
    ]  # fmt: skip
    assert offer.customs == {"apply_patch", "crm__query"}
    assert offer.place("crm__query") == ("crm", "query") and offer.place("now") == (None, "now")
    assert len(offer.notes) == len(HOSTED) + 1, "a grammar is not enforced"
    search = asked(tools=[NOW, {"type": "file_search", "vector_store_ids": ["vs_1"]}]).tool_offer()
    assert [tool.name for tool in search.tools] == ["now"] and not search.notes
    assert search.file_search is not None, "the daemon searches, not the model"
    assert full_name("mcp__files__", "read") == "mcp__files__read"


@pytest.mark.parametrize("tool", HOSTED, ids=lambda tool: str(tool["type"]))
def test_a_tool_that_runs_elsewhere_is_left_out_and_refused_where_it_is_required(tool):
    assert asked(tools=[tool]).tool_use(LOCAL) is None
    use = asked(tools=[tool, NOW], tool_choice="required").tool_use(LOCAL)
    assert use is not None and [t.name for t in use.tools] == ["now"]
    with pytest.raises(InvalidParameter, match="do not run on this device"):
        asked(tools=[tool], tool_choice="required").tool_use(LOCAL)
    with pytest.raises((UnsupportedParameter, ValidationError), match="not run"):
        asked(tools=[tool, NOW], tool_choice={"type": tool["type"]})
    allowed = {"type": "allowed_tools", "mode": "required", "tools": [tool]}
    with pytest.raises(UnsupportedParameter):
        asked(tools=[tool, NOW], tool_choice=allowed).tool_use(LOCAL)
    assert asked(tools=[tool, NOW], tool_choice=allowed | {"mode": "auto"}).tool_use(LOCAL) is None


@pytest.mark.parametrize(
    ("choice", "name"),
    [
        ({"type": "custom", "name": "apply_patch"}, "apply_patch"),
        ({"type": "function", "name": "now"}, "now"),
        ({"type": "function", "name": "find"}, "crm__find"),
        ({"type": "function", "name": "find", "namespace": "crm"}, "crm__find"),
    ],
)
def test_a_choice_finds_the_tool_that_the_client_means(choice, name):
    use = asked(tools=[NOW, PATCH, CRM], tool_choice=choice).tool_use(LOCAL)
    assert use is not None and use.name == name


TEXTS = [
    "", "x", 'say "hi"', "back\\slash", "line\nline\ttab\r", "ä€", "😀 smile", "\x00\x1f\x7f", "</tool>",
    "*** Begin Patch\n*** Add File: a\n+x\n*** End Patch", '{"input": "nested"}', "\\u0041", "a" * 3000,
]  # fmt: skip


@pytest.mark.parametrize("is_ascii", [False, True])
@pytest.mark.parametrize("size", [1, 2, 3, 7, 10_000])
@pytest.mark.parametrize("text", TEXTS)
def test_the_text_of_a_custom_call_comes_out_in_pieces_as_it_went_in(text, size, is_ascii):
    written = json.dumps({"input": text}, ensure_ascii=is_ascii)
    custom = CustomInput()
    told = [custom.feed(written[i : i + size]) for i in range(0, len(written), size)]
    assert "".join(told) + custom.finish() == text
    assert len(text) < 20 or size > 100 or sum(map(bool, told)) > 5, (
        "it is told while it is written"
    )
    assert json.loads(arguments_of(text)) == {"input": text}


@pytest.mark.parametrize(
    ("written", "text"),
    [
        ('{"input":"cut of', "cut of"), ('{"input":"half \\ud83d', "half "), ('{"inp', ""), ("", ""),
        ('{"input":"lone \\ud83d end"}', "lone ? end"), ('{"input":5}', ""), ("{}", ""), ("[1]", ""),
        ('{ "input" : "spaced" }', "spaced"),
    ],
)  # fmt: skip
def test_what_is_cut_off_or_odd_gives_what_there_is_of_it(written, text):
    custom = CustomInput()
    assert custom.feed(written) + custom.finish() == text
    text.encode()


def test_events_of_a_custom_call_add_up_in_the_sdk():
    offer = asked(tools=[NOW, PATCH, CRM]).tool_offer()
    head = {
        "id": "resp_1", "object": "response", "created_at": 1, "model": "m", "status": "in_progress",
        "parallel_tool_calls": True, "tool_choice": "auto", "tools": [],
    }  # fmt: skip
    builder = ResponseBuilder(head, wants_logprobs=False, offer=offer)
    chunks = [
        TokenChunk(0, "", calls=[CallDelta(0, '{"input":"*** Be', "apply_patch")]),
        TokenChunk(0, "", calls=[CallDelta(0, 'gin\\n"}'), CallDelta(1, "{}", "crm__find")]),
        TokenChunk(0, "", "tool_calls"),
    ]
    events = [event for chunk in chunks for event in builder.add([chunk])]
    state: Any = ResponseStreamState(input_tools=[], text_format=None)  # type: ignore[arg-type]
    seen = []
    for event in events:
        data = json.loads(event.data)
        assert data["type"] == event.kind
        parsed = TypeAdapter(ResponseStreamEvent).validate_python(data)
        state.handle_event(parsed)
        seen.append(data)
    kinds = [event["type"] for event in seen]
    assert kinds.count("response.custom_tool_call_input.delta") == 2
    (done,) = (e for e in seen if e["type"] == "response.custom_tool_call_input.done")
    assert done["input"] == "*** Begin\n"
    custom, find = (e["item"] for e in seen if e["type"] == "response.output_item.done")
    assert (custom["type"], custom["name"], custom["input"]) == (
        "custom_tool_call", "apply_patch", "*** Begin\n",
    )  # fmt: skip
    assert (find["namespace"], find["name"], find["arguments"]) == ("crm", "find", "{}")
    again = [{"type": "message", "role": "user", "content": "Go"}, custom, find]
    (_, said) = messages_of(again)
    functions = [call["function"] for call in said["tool_calls"]]
    assert [f["name"] for f in functions] == ["apply_patch", "crm__find"]
    assert json.loads(functions[0]["arguments"]) == {"input": "*** Begin\n"}


def test_a_chat_has_custom_calls_streamed_and_whole():
    offer = ToolOffer()
    offer.add_custom("note", None, None)
    offer.add(Tool(name="now"))
    chunks = [
        TokenChunk(0, "", calls=[CallDelta(0, '{"in', "note")]),
        TokenChunk(0, "", calls=[CallDelta(0, 'put":"a\\u00e4b"}'), CallDelta(1, "{}", "now")]),
        TokenChunk(0, "", "tool_calls"),
    ]
    streamed = ChatWriter(Decision("m", "named"), wants_usage=False, offer=offer)
    raw = b"".join(streamed.events([chunk]) for chunk in chunks).decode()
    deltas = [
        call
        for line in raw.splitlines() if line.startswith("data: ")
        for call in json.loads(line[6:])["choices"][0]["delta"].get("tool_calls", [])
    ]  # fmt: skip
    assert deltas[0]["type"] == "custom" and deltas[0]["custom"] == {"name": "note", "input": ""}
    assert "".join(d["custom"]["input"] for d in deltas if "custom" in d) == "aäb"
    whole = ChatWriter(Decision("m", "named"), wants_usage=False, offer=offer)
    whole.collect(chunks)
    first, second = whole._message(0)["tool_calls"]
    assert (first["type"], first["custom"]) == ("custom", {"name": "note", "input": "aäb"})
    assert (second["type"], second["function"]["name"]) == ("function", "now")
    body = {"messages": [{"role": "user", "content": "x"},
            {"role": "assistant", "content": None, "tool_calls": [first, second]}]}  # fmt: skip
    replayed = ChatRequest.model_validate(body).prompt().messages[1]["tool_calls"]
    assert json.loads(replayed[0]["function"]["arguments"]) == {"input": "aäb"}


@pytest.fixture(scope="module")
def client(tales_daemon: DaemonProcess) -> Iterator[openai.OpenAI]:
    with tales_daemon.client() as client:
        yield client


def test_codex_is_answered_and_its_custom_tool_called_and_replayed(client):
    asked: dict[str, Any] = {
        "model": TALES_CHAT, "instructions": "You are Codex", "store": False, "temperature": 0,
        "tools": [NOW, PATCH, {"type": "web_search"}, CRM], "parallel_tool_calls": False,
        "extra_body": {"client_metadata": {"x": "y"}}, "max_output_tokens": 60,
        "include": ["reasoning.encrypted_content"], "prompt_cache_key": "k",
    }  # fmt: skip
    ask: list[Any] = [{"role": "user", "content": "Add a file."}]
    choice = {"type": "custom", "name": "apply_patch"}
    with client.responses.stream(**asked, input=ask, tool_choice=choice) as stream:
        kinds = {event.type for event in stream}
        made = stream.get_final_response()
    assert "response.custom_tool_call_input.done" in kinds
    (call,) = made.output
    assert call.type == "custom_tool_call" and call.name == "apply_patch"
    assert any("web_search" in note for note in made.edgeagent["notes"])
    result = {"type": "custom_tool_call_output", "call_id": call.call_id, "output": "Done"}
    past = {"type": "web_search_call", "id": "ws_1", "status": "completed", "action": {}}
    ask += [call.model_dump(exclude_none=True), result, past, {"role": "user", "content": "Thanks"}]
    answer = client.responses.create(**asked, input=ask, tool_choice="none")
    assert answer.output_text
    assert any("web_search_call" in note for note in answer.edgeagent["notes"])


@pytest.mark.parametrize("arguments", ["", "  ", None, "{}"])
def test_empty_arguments_of_a_past_call_are_none_everywhere(tales_daemon, arguments):
    url = tales_daemon.url
    ask = {"role": "user", "content": "hi"}
    called = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": arguments}}
    native = {"function": {"name": "f", "arguments": arguments}}
    use = {"type": "tool_use", "id": "c1", "name": "f", "input": arguments}
    done = {"type": "tool_result", "tool_use_id": "c1", "content": "ok"}
    bodies = {
        "/v1/chat/completions": {"max_tokens": 1, "messages": [
            ask, {"role": "assistant", "tool_calls": [called]},
            {"role": "tool", "tool_call_id": "c1", "content": "ok"}]},
        "/v1/responses": {"max_output_tokens": 1, "store": False, "input": [
            ask, {"type": "function_call", "call_id": "c1", "name": "f", "arguments": arguments},
            {"type": "function_call_output", "call_id": "c1", "output": "ok"}]},
        "/v1/messages": {"max_tokens": 1, "messages": [
            ask, {"role": "assistant", "content": [use]}, {"role": "user", "content": [done]}]},
        "/api/chat": {"stream": False, "options": {"num_predict": 1}, "messages": [
            ask, {"role": "assistant", "tool_calls": [native]},
            {"role": "tool", "tool_name": "f", "content": "ok"}]},
    }  # fmt: skip
    for path, body in bodies.items():
        reply = httpx.post(f"{url}{path}", json=body | {"model": TALES_CHAT}, timeout=60)
        assert reply.status_code == 200, (path, reply.text)
