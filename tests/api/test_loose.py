"""Ollama's fields and options that are not known here, and numbers beyond what can be done."""

from __future__ import annotations

import json
import logging
from typing import Any

import httpx
import pytest
from pydantic import ValidationError

from edgeagent.api.http import lenient_body
from edgeagent.api.ollama.chat_schemas import OllamaChatRequest, OllamaGenerateRequest
from edgeagent.api.ollama.model_schemas import EmbedRequest, ShowRequest
from edgeagent.api.ollama.options import UNBOUNDED, OllamaOptions
from edgeagent.types.sampling import Sampling
from tests.conftest import TALES_CHAT, DaemonProcess

ASK = [{"role": "user", "content": "hi"}]


@pytest.fixture(autouse=True)
def nothing_said(monkeypatch):
    monkeypatch.setattr(lenient_body, "_said", set())


@pytest.mark.parametrize(
    ("model", "body"),
    [
        (OllamaChatRequest, {"model": "m", "CustomHeaders": {}, "format": None}),
        (OllamaChatRequest, {"model": "m", "messages": ASK, "dimensions": [1], "n": 2}),
        (OllamaChatRequest, {"model": "m", "options": {"mirostat": 2, "tfs_z": 0.5, "flash": 1}}),
        (OllamaChatRequest, {"model": "m", "options": {"rope_frequency_base": 1e6, "": None}}),
        (OllamaChatRequest, {"model": "m", "messages": [ASK[0] | {"x": 1}], "debug": True}),
        (OllamaGenerateRequest, {"model": "m", "prompt": "Hi", "Grammar": "root ::= x"}),
        (EmbedRequest, {"model": "m", "input": "x", "encoding_format": "float"}),
        (ShowRequest, {"name": "m", "insecure": True}),
    ],
)
def test_what_is_not_known_is_left_alone(model, body):
    model.model_validate(body)


def test_an_ignored_name_is_said_once_and_escaped(caplog):
    caplog.set_level(logging.WARNING)
    body = {"model": "m", "evil\nline\x1b[31m" + "x" * 200: 1, "options": {"temprature": 1}}
    for _ in range(3):
        OllamaChatRequest.model_validate(body)
    fields = [r.getMessage() for r in caplog.records if "request_field_ignored" in r.message]
    options = [r.getMessage() for r in caplog.records if "request_option_ignored" in r.message]
    assert len(fields) == len(options) == 1
    assert "temprature" in options[0] and "\n" not in fields[0] and "\x1b" not in fields[0]
    assert len(fields[0]) < 160


def test_names_do_not_fill_the_log_or_the_memory(caplog):
    caplog.set_level(logging.WARNING)
    OllamaChatRequest.model_validate({"model": "m"} | {f"x{i}": i for i in range(2000)})
    assert len(caplog.records) == lenient_body.MAX_NAMES == len(lenient_body._said)


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ({"temperature": 7}, {"temperature": 2}),
        ({"temperature": -0.1}, {"temperature": 0}),
        ({"top_p": 1.5, "min_p": -1, "typical_p": 0}, {"top_p": 1, "min_p": 0}),
        ({"top_k": -1}, {"top_k": 0}),
        ({"top_k": 40.0}, {"top_k": 40}),
        ({"repeat_penalty": 0}, {}),
        ({"repeat_last_n": 1 << 20}, {"repeat_last_n": 4096}),
        ({"repeat_last_n": -1}, {"repeat_last_n": 4096}),
        ({"presence_penalty": 9, "frequency_penalty": -9},
         {"presence_penalty": 2, "frequency_penalty": -2}),
    ],
)  # fmt: skip
def test_numbers_are_brought_to_the_nearest_that_can_be_done(given, wanted):
    sampling = OllamaOptions.model_validate(given).sampling(Sampling())
    assert {name: getattr(sampling, name) for name in wanted} == wanted
    assert sampling.typical_p > 0 and sampling.repeat_penalty > 0


@pytest.mark.parametrize(
    "given", [{"temperature": "hot"}, {"top_k": True}, {"seed": 1.5}, {"stop": 5}]
)
def test_a_value_of_the_wrong_type_is_refused(given):
    with pytest.raises(ValidationError):
        OllamaOptions.model_validate(given)


@pytest.mark.parametrize(
    ("n", "limit"),
    [(None, None), (5, 5), (0, UNBOUNDED), (-1, UNBOUNDED), (-2, UNBOUNDED), (-9, UNBOUNDED),
     (32_000, 32_000), (1 << 62, UNBOUNDED), (7.0, 7)],
)  # fmt: skip
def test_a_length_is_a_bound_or_says_that_there_is_none(n, limit):
    options = OllamaOptions.model_validate({"num_predict": n})
    assert options.max_tokens == limit
    assert options.is_unbounded == (n is not None and n < 1)


def ask(daemon: DaemonProcess, path: str, **body: Any) -> httpx.Response:
    asked = {"model": TALES_CHAT, "stream": False} | body
    return httpx.post(f"{daemon.url}{path}", json=asked, timeout=60)


@pytest.mark.parametrize("is_stream", [False, True])
def test_a_length_beyond_the_context_is_brought_down_and_said(tales_daemon, is_stream):
    options = {"num_predict": 32_000, "stop": ["e"]}
    reply = ask(tales_daemon, "/api/chat", messages=ASK, options=options, stream=is_stream)
    assert reply.status_code == 200
    last = json.loads(reply.text.splitlines()[-1])
    n_prompt, bound = last["prompt_eval_count"], int(reply.headers["x-edgeagent-clamped"])
    assert n_prompt + bound == 4096
    reply = ask(tales_daemon, "/api/chat", messages=ASK, options={"num_predict": 1})
    assert reply.json()["eval_count"] <= 1
    assert "x-edgeagent-clamped" not in reply.headers


def test_a_prompt_that_leaves_no_room_is_refused_all_the_same(tales_daemon):
    reply = ask(tales_daemon, "/api/generate", prompt="a " * 4200, raw=True)
    assert reply.status_code == 400
    assert "prompt is too long" in reply.json()["error"]
    assert "maximum context length is 4096 tokens" in reply.json()["error"]


def messages(daemon: DaemonProcess, **body: Any) -> httpx.Response:
    asked = {
        "model": TALES_CHAT,
        "messages": ASK,
        "max_tokens": 32_000,
        "stop_sequences": ["e"],
    } | body
    return httpx.post(f"{daemon.url}/v1/messages", json=asked, timeout=60)


def test_messages_are_brought_down_and_openais_endpoints_refuse(tales_daemon):
    reply = messages(tales_daemon)
    usage = reply.json()["usage"]
    n_prompt = usage["input_tokens"] + usage["cache_read_input_tokens"]
    assert int(reply.headers["x-edgeagent-clamped"]) == 4096 - n_prompt
    for path, body in (
        ("chat/completions", {"messages": ASK, "max_tokens": 32_000}),
        ("completions", {"prompt": "hi", "max_tokens": 32_000}),
        ("responses", {"input": "hi", "max_output_tokens": 32_000, "store": False}),
    ):
        reply = httpx.post(f"{tales_daemon.url}/v1/{path}", json=body | {"model": TALES_CHAT})
        assert reply.status_code == 400
        assert "maximum context length is 4096 tokens" in reply.json()["error"]["message"]


def test_a_stream_of_messages_begins_with_the_tokens_of_its_prompt(tales_daemon):
    whole = messages(tales_daemon, stream=True).text
    events = [json.loads(line[6:]) for line in whole.splitlines() if line.startswith("data: ")]
    begun = events[0]["message"]["usage"]
    ended = next(e["usage"] for e in events if e["type"] == "message_delta")
    assert begun["input_tokens"] > 0
    for name in ("input_tokens", "cache_read_input_tokens"):
        assert begun[name] == ended[name]


@pytest.mark.parametrize(
    "name",
    ["light.turn_on", "todo/add-item", "mcp:server/tool", "x" * 128, "a@b+c", "-", "get_time"],
)
def test_names_of_tools_that_ollamas_clients_have(tales_daemon, name):
    tool = {"type": "function", "function": {"name": name, "description": "x",
            "parameters": {"type": "object", "properties": {}}}}  # fmt: skip
    past = {"role": "assistant", "content": "",
            "tool_calls": [{"function": {"name": name, "arguments": ""}}]}  # fmt: skip
    result = {"role": "tool", "tool_name": name, "content": "done"}
    reply = ask(tales_daemon, "/api/chat", messages=[*ASK, past, result, *ASK], tools=[tool],
                options={"num_predict": 2})  # fmt: skip
    assert reply.status_code == 200, reply.text


@pytest.mark.parametrize("name", ["", "x" * 129, "two words", 'a"b', "a\nb", "ä", "<|x|>"])
def test_a_name_that_no_model_could_write_is_refused(tales_daemon, name):
    tool = {"type": "function", "function": {"name": name}}
    reply = ask(tales_daemon, "/api/chat", messages=ASK, tools=[tool])
    assert reply.status_code == 400 and "name" in reply.json()["error"]
