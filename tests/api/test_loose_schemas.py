"""Tools whose schemas cannot be enforced wholly, as each client sends them: an answer, with notes of the rest."""

# ruff: noqa: E501
from __future__ import annotations

import json
from typing import Any

import httpx
import ollama
import openai
import pytest

from tests.conftest import TALES_CHAT, DaemonProcess
from tests.lazy import lazily


@pytest.fixture(scope="module")
def client(tales_client: openai.OpenAI) -> openai.OpenAI:
    return tales_client


anthropic = lazily("anthropic")

# Home Assistant's entity and multi-select, an MCP server's map, OpenAPI's nullable, Gemini's types, a look-ahead.
PARAMETERS: dict[str, Any] = {
    "type": "OBJECT",
    "description": None,
    "properties": {
        "entity": {"type": "string", "format": "entity_id", "enum": ["light.hall", "light.bed"]},
        "modes": {"type": "array", "items": {"enum": ["eco", "max"]}, "uniqueItems": True, "maxItems": 2},
        "note": {"type": "string", "nullable": True, "maxLength": 4, "pattern": "^(?!x)"},
        "map": {"type": "object", "propertyNames": {"pattern": "^a"}, "maxProperties": 1},
    },
    "required": ["entity", "modes"],
}  # fmt: skip
NOTED = {("#/properties/entity", "format"), ("#/properties/modes", "uniqueItems")}
FUNCTION = {"name": "set_mode", "parameters": PARAMETERS}
ASK: list[Any] = [{"role": "user", "content": "Set the hall light to eco."}]
CHAT: dict[str, Any] = {"model": TALES_CHAT, "messages": ASK, "max_tokens": 60, "temperature": 0}
CHOICES: list[Any] = [
    "auto",
    "required",
    "none",
    {"type": "function", "function": {"name": "set_mode"}},
]


def check(arguments: Any) -> None:
    assert arguments["entity"] in ("light.hall", "light.bed")
    assert all(mode in ("eco", "max") for mode in arguments["modes"])


def noted(own: Any) -> set[tuple[str, str]]:
    assert all(set(note) == {"tool", "path", "keyword", "note"} for note in own["schema_notes"])
    of_tools = [note for note in own["schema_notes"] if note["keyword"] != "max_tokens"]
    assert {note["tool"] for note in of_tools} == {"set_mode"}
    return {(note["path"], note["keyword"]) for note in of_tools}


@pytest.mark.parametrize("choice", CHOICES, ids=str)
def test_chat(client: openai.OpenAI, choice: Any):
    tools: Any = [{"type": "function", "function": FUNCTION | {"strict": None}}]
    answer = client.chat.completions.create(**CHAT, tools=tools, tool_choice=choice)
    own = (answer.model_extra or {}).get("edgeagent")
    if choice == "none":
        assert own is None
        return
    assert noted(own) >= NOTED
    for call in answer.choices[0].message.tool_calls or []:
        check(json.loads(call.function.arguments))
    assert choice == "auto" or answer.choices[0].message.tool_calls


def test_a_streamed_chat_has_its_notes_with_the_finish_reason(client: openai.OpenAI):
    tools: Any = [{"type": "function", "function": FUNCTION}]
    stream = client.chat.completions.create(
        **CHAT, tools=tools, tool_choice="required", stream=True
    )
    (last,) = [chunk for chunk in stream if chunk.choices and chunk.choices[0].finish_reason]
    assert noted((last.model_extra or {})["edgeagent"]) >= NOTED


def test_responses(client: openai.OpenAI):
    tools: Any = [{"type": "function", "strict": False} | FUNCTION]
    answer = client.responses.create(
        model=TALES_CHAT,
        input="Set it to eco.",
        tools=tools,
        tool_choice="required",
        max_output_tokens=60,
    )
    (call, *_) = [item for item in answer.output if item.type == "function_call"]
    check(json.loads(call.arguments))
    assert noted((answer.model_extra or {})["edgeagent"]) >= NOTED


@pytest.mark.parametrize("stream", [False, True])
def test_messages(tales_daemon: DaemonProcess, stream: bool):
    tools: Any = [{"name": "set_mode", "input_schema": PARAMETERS | {"type": "object"}}]
    asked: Any = {
        "model": TALES_CHAT, "messages": ASK, "max_tokens": 60, "tools": tools, "tool_choice": {"type": "any"},
    }  # fmt: skip
    with anthropic.Anthropic(base_url=tales_daemon.url, api_key="none", max_retries=0) as claude:
        if not stream:
            answer = claude.messages.create(**asked)
            own = (answer.model_extra or {})["edgeagent"]
        else:
            with claude.messages.stream(**asked) as events:
                deltas = [event for event in events if event.type == "message_delta"]
                answer = events.get_final_message()
            own = (deltas[0].model_extra or {})["edgeagent"]
    assert noted(own) >= NOTED
    for block in answer.content:
        assert block.type == "tool_use"
        check(block.input)


def test_ollama(tales_daemon: DaemonProcess):
    function = FUNCTION | {"parameters": PARAMETERS | {"type": "object"}}
    with ollama.Client(tales_daemon.url) as llama:
        with_tools = llama.chat(
            TALES_CHAT,
            ASK,
            tools=[{"type": "function", "function": function}],
            options={"num_predict": 20},
        )
    assert with_tools.done
    form: Any = {
        "type": "object",
        "properties": {"e": {"type": "string", "format": "entity_id"}},
        "required": ["e"],
    }
    body = {
        "model": TALES_CHAT,
        "messages": ASK,
        "stream": False,
        "format": form,
        "options": {"num_predict": 30},
    }
    answer = httpx.post(f"{tales_daemon.url}/api/chat", json=body, timeout=60).json()
    assert isinstance(json.loads(answer["message"]["content"])["e"], str)
    (note,) = answer["edgeagent"]["schema_notes"]
    assert (note["tool"], note["path"], note["keyword"]) == (None, "#/properties/e", "format")


def test_what_is_strict_is_refused_in_every_dialect(tales_daemon: DaemonProcess):
    bad = {"type": "object", "properties": {"a": {"type": "string", "format": "entity_id"}}}
    function = {"name": "f", "parameters": bad, "strict": True}
    form = {"name": "f", "schema": bad, "strict": True}
    asked = {"model": TALES_CHAT, "messages": ASK, "max_tokens": 9}
    for path, body in (
        ("/v1/chat/completions", asked | {"tools": [{"type": "function", "function": function}]}),
        (
            "/v1/chat/completions",
            asked | {"response_format": {"type": "json_schema", "json_schema": form}},
        ),
        (
            "/v1/responses",
            {"model": TALES_CHAT, "input": "x", "tools": [{"type": "function"} | function]},
        ),
        (
            "/v1/responses",
            {"model": TALES_CHAT, "input": "x", "text": {"format": {"type": "json_schema"} | form}},
        ),
        ("/v1/messages", asked | {"tools": [{"name": "f", "input_schema": bad, "strict": True}]}),
    ):
        answer = httpx.post(tales_daemon.url + path, json=body, timeout=60)
        assert answer.status_code == 400, answer.text
        assert "`format` at #/properties/a" in answer.json()["error"]["message"]


@pytest.mark.parametrize("limit", [1, 6, 15, 22])
def test_a_call_whose_tokens_run_out_has_the_same_arguments_in_every_dialect(
    tales_daemon: DaemonProcess, limit: int
):
    parameters = {
        "type": "object",
        "properties": {"room": {"type": "string"}, "level": {"type": "integer"}},
        "required": ["room", "level"],
    }
    asked = {"model": TALES_CHAT, "messages": ASK, "max_tokens": limit, "temperature": 0}
    chat = asked | {
        "tools": [{"type": "function", "function": {"name": "dim", "parameters": parameters}}],
        "tool_choice": "required",
    }
    claude = asked | {
        "tools": [{"name": "dim", "input_schema": parameters}],
        "tool_choice": {"type": "any"},
    }
    answer = httpx.post(f"{tales_daemon.url}/v1/chat/completions", json=chat, timeout=60).json()
    message = httpx.post(f"{tales_daemon.url}/v1/messages", json=claude, timeout=60).json()
    (choice,) = answer["choices"]
    (call,) = choice["message"]["tool_calls"]
    (block,) = message["content"]
    arguments = json.loads(call["function"]["arguments"])
    assert arguments == block["input"]
    assert isinstance(arguments["room"], str) and isinstance(arguments["level"], int)
    assert (choice["finish_reason"], message["stop_reason"]) == ("length", "max_tokens")
    assert "max_tokens" in {note["keyword"] for note in answer["edgeagent"]["schema_notes"]}
