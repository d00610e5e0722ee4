"""What the Open Responses suite asks of a server, in words of our own: text, streaming, tools, several turns,
a system prompt. Objects have every field of the specification, whoever reads them."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from tests.conftest import TALES_CHAT, DaemonProcess

# Each of these is there, null or not.
FIELDS = {
    "id", "object", "created_at", "completed_at", "status", "incomplete_details", "model",
    "previous_response_id", "instructions", "output", "error", "tools", "tool_choice", "truncation",
    "parallel_tool_calls", "text", "top_p", "presence_penalty", "frequency_penalty", "top_logprobs",
    "temperature", "reasoning", "usage", "max_output_tokens", "max_tool_calls", "store", "background",
    "service_tier", "metadata", "safety_identifier", "prompt_cache_key",
}  # fmt: skip
WEATHER = {
    "type": "function", "name": "get_weather", "description": "The weather of a city",
    "parameters": {
        "type": "object", "properties": {"city": {"enum": ["Rome", "Oslo"]}}, "required": ["city"],
    },
}  # fmt: skip


def say(text: str, role: str = "user") -> dict[str, Any]:
    kind = "output_text" if role == "assistant" else "input_text"
    return {"type": "message", "role": role, "content": [{"type": kind, "text": text}]}


def post(daemon: DaemonProcess, **body: Any) -> httpx.Response:
    asked = {"model": TALES_CHAT, "max_output_tokens": 24, "temperature": 0} | body
    reply = httpx.post(f"{daemon.url}/v1/responses", json=asked, timeout=60)
    assert reply.status_code == 200, reply.text
    return reply


def checked(response: dict[str, Any]) -> dict[str, Any]:
    """A whole response; fails the test where it is not one of the specification."""
    assert response.keys() >= FIELDS, FIELDS - response.keys()
    assert response["object"] == "response" and response["status"] in ("completed", "incomplete")
    assert response["error"] is None and isinstance(response["created_at"], int)
    usage = response["usage"]
    assert usage["total_tokens"] == usage["input_tokens"] + usage["output_tokens"] > 0
    assert usage["input_tokens_details"]["cached_tokens"] <= usage["input_tokens"]
    for item in response["output"]:
        assert item["id"] and item["status"] in ("completed", "incomplete")
        if item["type"] == "message":
            assert item["role"] == "assistant"
            assert all(part["annotations"] == [] for part in item["content"])
    return response


def text_of(response: dict[str, Any]) -> str:
    parts = [part for item in response["output"] for part in item.get("content", ())]
    return "".join(part["text"] for part in parts)


@pytest.mark.parametrize(
    "turns",
    [
        [say("Say hello.")],
        [say("You are a pirate.", "system"), say("Say hello.")],
        [say("You are a pirate.", "developer"), say("Say hello.")],
        [say("My name is Ada."), say("Hello, Ada!", "assistant"), say("What is my name?")],
    ],
    ids=["text", "system prompt", "developer prompt", "several turns"],
)
def test_a_text_is_answered_by_a_whole_response(tales_daemon: DaemonProcess, turns):
    response = checked(post(tales_daemon, input=turns).json())
    (item,) = response["output"]
    assert item["type"] == "message" and text_of(response)


def test_events_tell_of_the_response_that_they_end_with(tales_daemon: DaemonProcess):
    reply = post(tales_daemon, input=[say("Count to five.")], stream=True)
    assert reply.headers["content-type"].startswith("text/event-stream")
    events = [json.loads(line[6:]) for line in reply.text.splitlines() if line.startswith("data: ")]
    kinds = [event["type"] for event in events]
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    assert kinds[:4] == [
        "response.created", "response.in_progress", "response.output_item.added",
        "response.content_part.added",
    ]  # fmt: skip
    assert kinds[-1] in ("response.completed", "response.incomplete")
    assert set(kinds[4:-4]) == {"response.output_text.delta"}
    whole = checked(events[-1]["response"])
    deltas = "".join(e["delta"] for e in events if e["type"] == "response.output_text.delta")
    assert deltas == text_of(whole)
    assert events[0]["response"].keys() >= FIELDS and events[0]["response"]["output"] == []


@pytest.mark.parametrize("is_stream", [False, True])
def test_a_function_is_called_and_its_result_answered(tales_daemon: DaemonProcess, is_stream):
    asked = {"tools": [WEATHER], "tool_choice": "required", "parallel_tool_calls": False}
    turns = [say("What is the weather in Rome?")]
    reply = post(tales_daemon, input=turns, stream=is_stream, max_output_tokens=60, **asked)
    if is_stream:
        lines = [line for line in reply.text.splitlines() if line.startswith("data: ")]
        response = checked(json.loads(lines[-1][6:])["response"])
    else:
        response = checked(reply.json())
    (call,) = response["output"]
    assert call["type"] == "function_call" and call["name"] == "get_weather" and call["call_id"]
    assert json.loads(call["arguments"])["city"] in ("Rome", "Oslo")
    result = {"type": "function_call_output", "call_id": call["call_id"], "output": "Sunny."}
    after = checked(post(tales_daemon, input=[*turns, call, result], tools=[WEATHER]).json())
    assert after["usage"]["input_tokens"] > response["usage"]["input_tokens"]
