"""What a llama-server answers through a daemon, and what it refuses: the checks of `llama_server.py`."""

from __future__ import annotations

import json
from typing import Any

from scripts.faults.llama_pair import (
    CHAT,
    N_CTX,
    N_SLOTS,
    UNCHECKED,
    Checks,
    Json,
    Pair,
    events,
    question,
)

WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather of a city",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string", "maxLength": 20}},
            "required": ["city"],
        },
    },
}
PERSON = {
    "type": "object",
    "properties": {"age": {"type": "integer"}, "kind": {"enum": ["cat", "dog"]}},
    "required": ["age", "kind"],
    "additionalProperties": False,
}


def check_answers(pair: Pair, checks: Checks) -> None:
    def chat() -> str:
        mine, own = pair.both(ignore_eos=True)
        assert mine["usage"]["prompt_tokens"] == own["usage"]["prompt_tokens"], mine["usage"]
        assert mine["usage"]["completion_tokens"] == own["usage"]["completion_tokens"] == 16
        assert mine["choices"][0]["finish_reason"] == "length"
        assert mine["choices"][0]["message"]["content"]
        return f"{mine['usage']['prompt_tokens']} + 16 tokens, as llama-server counts them"

    def stream() -> str:
        n_pieces, usage, finish = 0, None, None
        fields = question(
            CHAT, {"stream": True, "stream_options": {"include_usage": True}, "ignore_eos": True}
        )
        with pair.through.stream("POST", CHAT, json={"model": "big"} | fields) as reply:
            for one in events(reply):
                assert "error" not in one, one
                usage = one.get("usage") or usage
                for choice in one["choices"]:
                    n_pieces += bool(choice["delta"].get("content"))
                    finish = choice["finish_reason"] or finish
        assert n_pieces > 3, n_pieces
        assert finish == "length" and usage is not None, (finish, usage)
        assert usage["completion_tokens"] == 16, usage
        return f"{n_pieces} pieces"

    def cached() -> str:
        pair.answer()
        usage = pair.answer()["usage"]
        n_cached = usage["prompt_tokens_details"]["cached_tokens"]
        assert 0 < n_cached < usage["prompt_tokens"], usage
        return f"{n_cached} of {usage['prompt_tokens']} tokens from its cache"

    def logprobs() -> str:
        mine = pair.answer(logprobs=True, top_logprobs=3, ignore_eos=True)
        content = mine["choices"][0]["logprobs"]["content"]
        assert len(content) == 16, len(content)
        assert all(len(one["top_logprobs"]) == 3 for one in content)
        assert all(one["logprob"] <= 0 for one in content)
        return "16 tokens with 3 alternatives each"

    def stop() -> str:
        mine, own = pair.both(stop=["e"], max_tokens=64)
        choice = mine["choices"][0]
        assert choice["finish_reason"] == own["choices"][0]["finish_reason"] == "stop", choice
        assert "e" not in choice["message"]["content"], choice
        return "cut before the stop text"

    def seed() -> str:
        texts = {
            pair.answer(seed=7, temperature=1.5, max_tokens=12)["choices"][0]["message"]["content"]
            for _ in range(2)
        }
        others = {
            pair.answer(seed=n, temperature=1.5, max_tokens=12)["choices"][0]["message"]["content"]
            for n in range(3)
        }
        assert len(others) > 1, "seeds are not passed on"
        return f"{len(texts)} text with one seed, {len(others)} with three"

    def schema() -> str:
        form = {"type": "json_schema", "json_schema": {"name": "p", "schema": PERSON}}
        mine = pair.answer(response_format=form, max_tokens=200)
        found = json.loads(mine["choices"][0]["message"]["content"])
        assert set(found) == {"age", "kind"} and found["kind"] in ("cat", "dog"), found
        return json.dumps(found)[:60]

    def required_tool() -> str:
        mine, own = pair.both(tools=[WEATHER], tool_choice="required", max_tokens=200)
        if "tool_calls" not in own["choices"][0]["message"]:
            return f"{UNCHECKED} with this model and template llama-server makes no call itself"
        return _call_of(mine)

    def streamed_tool() -> str:
        fields = question(
            CHAT, {"tools": [WEATHER], "tool_choice": "required", "stream": True, "max_tokens": 200}
        )
        name, arguments, finish, ids = "", "", None, set()
        with pair.through.stream("POST", CHAT, json={"model": "big"} | fields) as reply:
            for one in events(reply):
                assert "error" not in one, one
                for choice in one["choices"]:
                    finish = choice["finish_reason"] or finish
                    for call in choice["delta"].get("tool_calls") or ():
                        name += call["function"].get("name") or ""
                        arguments += call["function"].get("arguments") or ""
                        ids |= {call["id"]} if call.get("id") else set()
        if not name and "tool_calls" not in pair.own(**fields)["choices"][0]["message"]:
            return f"{UNCHECKED} with this model and template llama-server makes no call itself"
        assert name == "get_weather" and finish == "tool_calls" and len(ids) == 1, (name, finish)
        assert "city" in json.loads(arguments), arguments
        return f"{name}({arguments[:40]})"

    def free_tool() -> str:
        mine = pair.answer(tools=[WEATHER], max_tokens=100)
        return f"finish_reason {mine['choices'][0]['finish_reason']}"

    def tool_result() -> str:
        call = {"id": "call_1", "type": "function",
                "function": {"name": "get_weather", "arguments": '{"city": "Rome"}'}}  # fmt: skip
        messages = [
            {"role": "user", "content": "Weather in Rome?"},
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "call_1", "content": "sunny, 20 degrees"},
        ]
        mine, own = pair.both(messages=messages, tools=[WEATHER], tool_choice="none")
        assert mine["usage"]["prompt_tokens"] <= own["usage"]["prompt_tokens"], (mine, own)
        return f"{mine['usage']['prompt_tokens']} tokens of prompt"

    def several() -> str:
        mine = pair.answer(n=2, ignore_eos=True)
        assert [one["index"] for one in mine["choices"]] == [0, 1], mine
        assert mine["usage"]["completion_tokens"] == 32, mine["usage"]
        return "2 answers, 32 tokens"

    def text() -> str:
        mine = pair.answer(path="/v1/completions", prompt="Once upon a time", ignore_eos=True)
        assert mine["choices"][0]["text"] and mine["usage"]["completion_tokens"] == 16, mine
        return "16 tokens"

    def texts() -> str:
        mine = pair.answer(path="/v1/completions", prompt=["One two", "Once upon"], ignore_eos=True)
        assert [one["index"] for one in mine["choices"]] == [0, 1], mine
        assert mine["usage"]["completion_tokens"] == 32, mine["usage"]
        return f"{mine['usage']['prompt_tokens']} + 32 tokens"

    def unicode() -> str:
        messages = [{"role": "user", "content": "Repeat: 🐈 ж 中 \u0000 \u2028 <|im_end|> ok"}]
        mine = pair.answer(messages=messages)
        assert mine["usage"]["completion_tokens"] > 0
        return f"{mine['usage']['prompt_tokens']} tokens of prompt"

    def ollama() -> str:
        body = {"model": "big", "messages": [{"role": "user", "content": "Hi"}], "stream": False}
        reply = pair.through.post("/api/chat", json=body | {"options": {"num_predict": 8}})
        assert reply.status_code == 200, reply.text
        found = reply.json()
        assert found["done"] and found["eval_count"] and found["prompt_eval_count"], found
        names = [one["name"] for one in pair.through.get("/api/tags").json()["models"]]
        assert "big:latest" in names, names
        return f"{found['eval_count']} tokens, and its model is in /api/tags"

    def anthropic() -> str:
        body = {"model": "big", "max_tokens": 8, "messages": [{"role": "user", "content": "Hi"}]}
        reply = pair.through.post("/v1/messages", json=body)
        assert reply.status_code == 200, reply.text
        assert 0 < reply.json()["usage"]["output_tokens"] <= 8, reply.text
        return f"stop_reason {reply.json()['stop_reason']}"

    def response() -> str:
        reply = pair.through.post(
            "/v1/responses", json={"model": "big", "input": "Hi", "max_output_tokens": 16}
        )
        assert reply.status_code == 200, reply.text
        assert 0 < reply.json()["usage"]["output_tokens"] <= 16, reply.text
        return f"status {reply.json()['status']}"

    for name, check in (
        ("chat", chat), ("stream", stream), ("cached prompt", cached), ("log-probabilities", logprobs),
        ("stop", stop), ("seed", seed), ("JSON schema", schema), ("required tool", required_tool),
        ("required tool, streamed", streamed_tool), ("tool offered", free_tool),
        ("result of a tool", tool_result), ("two answers", several), ("text to continue", text),
        ("two texts to continue", texts),
        ("unusual characters", unicode), ("Ollama's dialect", ollama),
        ("Anthropic's dialect", anthropic), ("Responses", response),
    ):  # fmt: skip
        checks.run(name, check)


def _call_of(answer: Json) -> str:
    choice = answer["choices"][0]
    (call,) = choice["message"]["tool_calls"]
    assert choice["finish_reason"] == "tool_calls", choice
    assert call["function"]["name"] == "get_weather", call
    arguments = call["function"]["arguments"]
    assert isinstance(json.loads(arguments)["city"], str), arguments
    return f"get_weather({arguments[:40]})"


def check_refusals(pair: Pair, checks: Checks) -> None:
    def error_of(status: int, **fields: Any) -> Json:
        reply = pair.ask(**fields)
        assert reply.status_code == status, f"{reply.status_code} {reply.text}"
        found: Json = reply.json()["error"]
        return found

    def is_well() -> None:
        assert pair.ask(max_tokens=1).status_code == 200, "it is avoided after a bad request"

    def too_long() -> str:
        messages = [{"role": "user", "content": "red green blue " * N_CTX}]
        for _ in range(4):
            error = error_of(400, messages=messages)
            assert error["code"] == "context_length_exceeded", error
        is_well()
        return str(error["message"])

    def too_long_stream() -> str:
        messages = [{"role": "user", "content": "red green blue " * N_CTX}]
        error = error_of(400, messages=messages, stream=True)
        assert error["code"] == "context_length_exceeded", error
        return "400 before the stream"

    def bad_schema() -> str:
        deep: Json = {"type": "object", "properties": {"a": {"$ref": "#/$defs/none"}}}
        form = {"type": "json_schema", "json_schema": {"name": "p", "schema": deep}}
        for _ in range(4):
            reply = pair.ask(response_format=form)
            assert reply.status_code == 400, f"{reply.status_code} {reply.text}"
        is_well()
        return str(reply.json()["error"]["message"])

    def reused() -> str:
        statuses = [pair.ask(max_tokens=1).status_code for _ in range(40)]
        assert statuses == [200] * 40, statuses
        return "40 requests over kept connections"

    def too_many() -> str:
        for _ in range(4):
            reply = pair.ask(n=N_SLOTS + 1)
            assert reply.status_code in (200, 400), f"{reply.status_code} {reply.text}"
        is_well()
        return f"{reply.status_code}"

    def wrong_key() -> str:
        error = error_of(503, model="unkeyed")
        assert "401" in error["message"], error
        return str(error["message"])

    def unknown_model() -> str:
        reply = pair.ask(model="renamed")
        assert reply.status_code in (200, 404, 503), f"{reply.status_code} {reply.text}"
        is_well()
        return f"{reply.status_code}: a llama-server with one model answers for any name"

    for name, check in (
        ("prompt too long", too_long), ("prompt too long, stream", too_long_stream),
        ("schema it cannot follow", bad_schema), ("more answers than slots", too_many),
        ("wrong API key", wrong_key), ("model it does not have", unknown_model),
        ("one after the other", reused),
    ):  # fmt: skip
        checks.run(name, check)
