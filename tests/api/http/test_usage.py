"""Token counts of every endpoint: never negative, no more cached than the prompt has, sums that add up."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from tests.conftest import TALES_CHAT, DaemonProcess

NOW = {"type": "object", "properties": {}}
FUNCTION = {"type": "function", "function": {"name": "now", "parameters": NOW}}
FORM = {"type": "object", "properties": {"what_is_the_time": {"type": "boolean"}}}
ASK = [{"role": "user", "content": "What time is it, please?"}]
CHAT: dict[str, Any] = {"model": TALES_CHAT, "messages": ASK, "max_tokens": 16, "temperature": 0}
CALL = {"tools": [FUNCTION], "tool_choice": "required"}
JSON = {"type": "json_schema", "json_schema": {"name": "x", "schema": FORM}}
FLAT = {"type": "function", "name": "now", "parameters": NOW}
CLAUDE_TOOL = {"name": "now", "input_schema": NOW}
OLLAMA: dict[str, Any] = {
    "model": TALES_CHAT, "messages": ASK, "stream": False, "options": {"num_predict": 16, "temperature": 0},
}  # fmt: skip
RESPONSE: dict[str, Any] = {
    "model": TALES_CHAT, "input": ASK, "max_output_tokens": 16, "temperature": 0, "store": False,
}  # fmt: skip
REQUESTS: dict[str, tuple[str, dict[str, Any]]] = {
    "chat": ("/v1/chat/completions", CHAT),
    "chat, forced": ("/v1/chat/completions", CHAT | CALL),
    "chat, forced, one token": ("/v1/chat/completions", CHAT | CALL | {"max_tokens": 1}),
    "chat, form": ("/v1/chat/completions", CHAT | {"response_format": JSON}),
    "chat, several": ("/v1/chat/completions", CHAT | CALL | {"n": 3}),
    "completions": ("/v1/completions", {"model": TALES_CHAT, "prompt": ["a b c", "d e"], "max_tokens": 4}),
    "responses": ("/v1/responses", RESPONSE),
    "responses, forced": ("/v1/responses", RESPONSE | {"tools": [FLAT], "tool_choice": "required"}),
    "messages": ("/v1/messages", CHAT),
    "messages, forced": ("/v1/messages", CHAT | {"tools": [CLAUDE_TOOL], "tool_choice": {"type": "any"}}),
    "ollama": ("/api/chat", OLLAMA),
    "ollama, form": ("/api/chat", OLLAMA | {"format": FORM}),
}  # fmt: skip


def counts(body: dict[str, Any]) -> tuple[int, int, int, int]:
    """Prompt, cached, generated and all tokens, in whatever words."""
    usage = body.get("usage", body)
    if "cache_read_input_tokens" in usage:
        cached, made = usage["cache_read_input_tokens"], usage["output_tokens"]
        assert usage["input_tokens"] >= 0
        prompt = usage["input_tokens"] + cached
        return prompt, cached, made, prompt + made
    if "input_tokens" in usage:
        cached = usage["input_tokens_details"]["cached_tokens"]
        return usage["input_tokens"], cached, usage["output_tokens"], usage["total_tokens"]
    if "prompt_tokens" in usage:
        cached = usage["prompt_tokens_details"]["cached_tokens"]
        return usage["prompt_tokens"], cached, usage["completion_tokens"], usage["total_tokens"]
    n_prompt, n_made = usage["prompt_eval_count"], usage["eval_count"]
    return n_prompt, 0, n_made, n_prompt + n_made


@pytest.mark.parametrize("name", REQUESTS)
def test_counts_of_a_repeated_request_add_up(tales_daemon: DaemonProcess, name: str):
    path, body = REQUESTS[name]
    prompts = set()
    for _ in range(3):  # the second and third find what the first has left
        answer = httpx.post(tales_daemon.url + path, json=body, timeout=120)
        assert answer.status_code == 200, answer.text
        prompt, cached, made, total = counts(answer.json())
        assert 0 <= cached <= prompt and made >= 1 and total == prompt + made
        prompts.add(prompt)
    assert len(prompts) == 1, "a prompt has its tokens, cached or not"


@pytest.mark.parametrize("name", ["chat, forced", "messages, forced", "responses, forced"])
def test_counts_of_a_stream_are_those_of_the_whole(tales_daemon: DaemonProcess, name: str):
    path, body = REQUESTS[name]
    whole = counts(httpx.post(tales_daemon.url + path, json=body, timeout=120).json())
    more = {"stream": True} | (
        {"stream_options": {"include_usage": True}} if "chat" in name else {}
    )
    answer = httpx.post(tales_daemon.url + path, json=body | more, timeout=120)
    lines = [line[6:] for line in answer.text.splitlines() if line.startswith("data: {")]
    events = [json.loads(line) for line in lines]
    last = [found for event in events if (found := event.get("response", event)).get("usage")][-1]
    prompt, cached, made, total = counts(last)
    assert (prompt, made, total) == (whole[0], whole[2], whole[3]) and 0 <= cached <= prompt
