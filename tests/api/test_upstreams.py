"""A daemon whose larger model answers elsewhere: every dialect, policies, audit, and what it tells of it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import openai
import pytest

from scripts.faults import upstreams
from scripts.faults.upstream_server import ScriptedServer, event, in_thread, piece
from tests.conftest import TALES_CHAT, DaemonProcess, serving

BIG, FAR = "big", "far"
TEXT = "one two three four"
ASK: list[Any] = [{"role": "user", "content": "Hello"}]


class Scene(NamedTuple):
    daemon: DaemonProcess
    server: ScriptedServer
    stranger: ScriptedServer


@pytest.fixture(scope="module")
def started(
    tales_dir: Path, tales_daemon: DaemonProcess, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Scene]:
    """`server` may be sent what this machine asks, `stranger` only what a key asks that does not exist, and
    `far` is a model of another edgeagent."""
    server, stranger = ScriptedServer(), ScriptedServer()
    with in_thread(server, stranger):
        common = {"timeout_s": 20, "connect_timeout_s": 10, "breaker_failures": 1000}
        hasty = common | {"timeout_s": 0.2}
        upstreams = [
            {"name": "basement", "url": server.url, "models": {BIG: "their-big"}, "keys": ["local"]}
            | common,
            {
                "name": "other",
                "url": stranger.url,
                "models": {"closed-big": "x"},
                "keys": ["nobody"],
            }
            | common,
            {"name": "hasty", "url": server.url, "models": {"hasty-big": "x"}, "keys": ["*"]} | hasty,
            {"name": "agent", "url": f"{tales_daemon.url}/v1", "models": {FAR: TALES_CHAT},
             "keys": ["*"]},
        ]  # fmt: skip
        routing: dict[str, Any] = {
            "routing.candidates": [TALES_CHAT, BIG],
            "routing.rules": [
                {"id": "hard", "match": {"keywords_any": ["xyzzy"]}, "route_to": BIG},
                {"id": "closed", "match": {"keywords_any": ["plugh"]}, "route_to": "closed-big"},
            ],
            "routing.upstreams": upstreams,
        }
        state = tmp_path_factory.mktemp("upstreams")
        with serving(tales_dir, state, n_ctx=512, n_seq=2, **routing) as daemon:
            yield Scene(daemon, server, stranger)


@pytest.fixture
def scene(started: Scene) -> Scene:
    server = started.server
    server.behaviour, server.pieces, server.bodies = "answer", None, []
    return started


def post(scene: Scene, path: str, **body: Any) -> httpx.Response:
    return httpx.post(f"{scene.daemon.url}{path}", json=body, timeout=60)


REQUESTS = [
    ("/v1/chat/completions", {"messages": ASK}),
    ("/v1/chat/completions", {"messages": ASK, "stream": True}),
    ("/v1/responses", {"input": "Hello"}),
    ("/v1/responses", {"input": "Hello", "stream": True, "store": False}),
    ("/v1/messages", {"messages": ASK, "max_tokens": 9}),
    ("/v1/messages", {"messages": ASK, "max_tokens": 9, "stream": True}),
    ("/api/chat", {"messages": ASK, "stream": False}),
    ("/api/generate", {"prompt": "Hello", "stream": False}),
    ("/v1/completions", {"prompt": "Hello"}),
    ("/v1/completions", {"prompt": "Hello", "echo": True}),
]


@pytest.mark.parametrize(("path", "body"), REQUESTS)
def test_every_dialect_asks_an_upstream(scene, path, body):
    reply = post(scene, path, model=BIG, **body)
    assert reply.status_code == 200, reply.text
    for word in TEXT.split():
        assert word in reply.text
    (sent,) = scene.server.bodies
    assert sent["model"] == "their-big" and sent["stream"]
    given = sent.get("messages", [{"content": sent.get("prompt")}])
    assert given[-1]["content"] == "Hello"
    assert not {"temperature", "top_p", "top_k"} & set(sent), (
        "what the client left open is left open"
    )


def test_the_official_client_reads_text_counts_and_values(scene):
    with scene.daemon.client() as client:
        answer = client.chat.completions.create(
            model=BIG, messages=ASK, temperature=0.8, top_p=0.5, seed=3, stop="zz", n=1,
            logit_bias={"5": 1}, presence_penalty=0.5, reasoning_effort="low",
        )  # fmt: skip
        assert answer.choices[0].message.content == TEXT and answer.model == BIG
        assert answer.usage.prompt_tokens == 11 and answer.usage.completion_tokens == 4
        assert answer.usage.prompt_tokens_details.cached_tokens == 5
    (sent,) = scene.server.bodies
    expected = {
        "temperature": 0.8, "top_p": 0.5, "seed": 3, "stop": ["zz"], "logit_bias": {"5": 1.0},
        "presence_penalty": 0.5, "reasoning_effort": "low",
    }  # fmt: skip
    assert {name: sent.get(name) for name in expected} == expected


TOOL = {
    "type": "function",
    "function": {
        "name": "light", "description": "Switch", "strict": True,
        "parameters": {"type": "object", "properties": {"on": {"type": "boolean"}},
                       "required": ["on"], "additionalProperties": False},
    },
}  # fmt: skip


def test_tools_schemas_reasoning_and_logprobs_pass_through(scene):
    def call(**function: Any) -> dict[str, Any]:
        return {"tool_calls": [{"index": 0, "id": "x", "function": function}]}

    scene.server.pieces = [
        piece({"reasoning_content": "Hm."}), piece(call(name="light", arguments="")),
        piece(call(arguments='{"on":')), piece(call(arguments=" true}")), piece({}, "tool_calls"),
        b"data: [DONE]\n\n",
    ]  # fmt: skip
    history = [
        *ASK,
        {"role": "assistant", "content": None, "tool_calls": [
            {"id": "c1", "type": "function", "function": {"name": "light", "arguments": "{}"}}]},
        {"role": "tool", "tool_call_id": "c1", "content": "done"},
    ]  # fmt: skip
    with scene.daemon.client() as client:
        answer = client.chat.completions.create(
            model=BIG, messages=history, tools=[TOOL], tool_choice="required",
            parallel_tool_calls=False,
        )  # fmt: skip
        choice = answer.choices[0]
        assert choice.finish_reason == "tool_calls"
        assert json.loads(choice.message.tool_calls[0].function.arguments) == {"on": True}
        sent = scene.server.bodies[0]
        assert sent["tools"] == [TOOL] and sent["tool_choice"] == "required"
        assert sent["parallel_tool_calls"] is False
        assert sent["messages"][1]["tool_calls"][0]["id"] == sent["messages"][2]["tool_call_id"]
        logprobs = {"content": [{"token": "{}", "logprob": -0.5, "bytes": [123, 125],
                                 "top_logprobs": [{"token": "{}", "logprob": -0.5}]}]}  # fmt: skip
        scene.server.pieces = [
            event(choices=[{"index": 0, "delta": {"content": "{}"}, "logprobs": logprobs}]),
            piece({}, "length"), b"data: [DONE]\n\n",
        ]  # fmt: skip
        schema = {"name": "a", "schema": {"type": "object"}, "strict": False}
        answer = client.chat.completions.create(
            model=BIG, messages=ASK, logprobs=True, top_logprobs=1,
            response_format={"type": "json_schema", "json_schema": schema},
        )  # fmt: skip
        sent = scene.server.bodies[1]
    assert sent["response_format"]["json_schema"]["schema"] == {"type": "object"}
    assert sent["logprobs"] is True and sent["top_logprobs"] == 1
    assert answer.choices[0].finish_reason == "length"
    assert answer.choices[0].logprobs.content[0].logprob == -0.5


PRIVATE = [
    (
        "/v1/chat/completions",
        {"model": BIG, "messages": ASK, "metadata": {"privacy": "local"}},
        403,
    ),
    ("/v1/chat/completions", {"model": BIG, "messages": ASK, "metadata": {"privacy": "site"}}, 403),
    ("/v1/chat/completions", {"model": BIG, "messages": ASK, "metadata": {"privacy": "x"}}, 400),
    ("/v1/responses", {"model": BIG, "input": "x", "metadata": {"privacy": "local"}}, 403),
    ("/v1/chat/completions", {"model": "closed-big", "messages": ASK}, 403),
    ("/v1/completions", {"model": "closed-big", "prompt": "x"}, 403),
    ("/v1/embeddings", {"model": BIG, "input": "x"}, 404),
    ("/v1/tokenize", {"model": BIG, "text": "x"}, 404),
    ("/v1/chat/completions/input_tokens", {"model": BIG, "messages": ASK}, 400),
    ("/v1/models/big/load", {}, 404),
]


@pytest.mark.parametrize(("path", "body", "status"), PRIVATE)
def test_what_may_not_be_sent_opens_no_connection(scene, path, body, status):
    before = scene.server.n_connections
    reply = post(scene, path, **body)
    assert reply.status_code == status, reply.text
    assert (scene.server.n_connections, scene.stranger.n_connections) == (before, 0)


def test_of_many_private_requests_the_upstream_sees_no_connection(scene):
    before = scene.server.n_connections
    with httpx.Client(base_url=scene.daemon.url, timeout=60) as client:
        statuses = upstreams.private_requests(client, 100, BIG)
    assert statuses == {200: 4, 403: 96}
    assert (scene.server.n_connections, scene.stranger.n_connections) == (before, 0)


def test_routes_keep_private_requests_here_and_send_others(scene):
    hard = [{"role": "user", "content": "xyzzy"}]
    sent = post(scene, "/v1/chat/completions", model="auto", messages=hard, max_tokens=2)
    assert sent.headers["x-edgeagent-route"] == "route=auto; model=big; reason=rule; rule=hard"
    before = scene.server.n_connections
    ways: list[dict[str, Any]] = [
        {"model": "auto:local"}, {"model": "auto", "metadata": {"privacy": "local"}},
        {"model": "auto", "messages": [{"role": "user", "content": "plugh"}]},
    ]  # fmt: skip
    for way in ways:
        body = {"messages": hard, "max_tokens": 2, "route_trace": True} | way
        kept = post(scene, "/v1/chat/completions", **body)
        assert f"model={TALES_CHAT}; reason=fallback" in kept.headers["x-edgeagent-route"]
        assert "may not be sent" in kept.text
    assert (scene.server.n_connections, scene.stranger.n_connections) == (before, 0)


def test_what_continues_a_private_turn_stays_here(scene):
    def respond(**body: Any) -> httpx.Response:
        return post(scene, "/v1/responses", max_output_tokens=1, **body)

    before = scene.server.n_connections
    private = respond(model="auto:local", input="My illness is xyzzy.").json()
    assert private["metadata"] == {"privacy": "local"}
    conversation = post(scene, "/v1/conversations", metadata={"privacy": "local"}).json()["id"]
    item = httpx.get(
        f"{scene.daemon.url}/v1/responses/{private['id']}/input_items"
    ).json()["data"][0]["id"]  # fmt: skip
    unstored = post(scene, "/v1/conversations").json()["id"]
    respond(model="auto:local", input="My illness is xyzzy.", conversation=unstored, store=False)
    ways: list[dict[str, Any]] = [
        {"conversation": unstored, "input": "xyzzy"},
        {"previous_response_id": private["id"], "input": "xyzzy"},
        {"conversation": conversation, "input": "xyzzy"},
        {"input": [{"type": "item_reference", "id": item}]},
    ]
    for way in ways:
        assert respond(model=BIG, **way).status_code == 403, way
        again = respond(model="auto", **way).json()
        assert again["model"] == TALES_CHAT and again["metadata"]["privacy"] == "local", way
    third = respond(model=BIG, previous_response_id=again["id"], input="And?")
    assert third.status_code == 403 and scene.server.n_connections == before
    assert respond(model=BIG, input="Hello").json()["metadata"] == {}


def test_a_request_in_a_circle_of_daemons_is_refused(scene):
    body = {"model": BIG, "messages": ASK}
    url = f"{scene.daemon.url}/v1/chat/completions"
    assert httpx.post(url, json=body, headers={"x-edgeagent-hops": "3"}).status_code == 403
    assert httpx.post(url, json=body, headers={"x-edgeagent-hops": "x"}).status_code == 200


@pytest.mark.parametrize("is_stream", [False, True])
def test_a_route_falls_back_to_this_device_before_anything_was_shown(scene, is_stream):
    hard = [{"role": "user", "content": "xyzzy"}]
    scene.server.behaviour = "hang_up"
    reply = post(
        scene, "/v1/chat/completions", model="auto", messages=hard, max_tokens=2, stream=is_stream
    )
    assert reply.status_code == 200, reply.text
    assert f"model={TALES_CHAT}; reason=fallback" in reply.headers["x-edgeagent-route"]
    assert f'"model":"{TALES_CHAT}"' in reply.text and '"model":"big"' not in reply.text
    assert len(scene.server.bodies) == 1


def test_faults_are_told_in_the_shape_of_the_dialect(scene):
    scene.server.behaviour = "half"
    with scene.daemon.client() as client, pytest.raises(openai.APIError, match="within its answer"):
        for _ in client.chat.completions.create(model=BIG, messages=ASK, stream=True):
            pass
    scene.server.behaviour = "500"
    assert post(scene, "/v1/messages", model=BIG, messages=ASK, max_tokens=1).status_code == 502
    scene.server.behaviour = "silent"
    assert (
        post(scene, "/api/chat", model="hasty-big", messages=ASK, stream=False).status_code == 504
    )


def test_the_models_of_upstreams_are_listed_for_keys_that_may_use_them(scene):
    listed = httpx.get(f"{scene.daemon.url}/v1/models").json()["data"]
    (big,) = [model for model in listed if model["id"] == BIG]
    assert big["is_upstream"] and big["owned_by"] == "upstream"
    assert "closed-big" not in {model["id"] for model in listed}
    tags = httpx.get(f"{scene.daemon.url}/api/tags").json()["models"]
    (big,) = [model for model in tags if model["name"] == f"{BIG}:latest"]
    assert big["size"] == 0 and big["digest"] == ""
    assert "closed-big:latest" not in {model["name"] for model in tags}
    shown = post(scene, "/api/show", model=f"{BIG}:latest")
    assert shown.status_code == 200 and "completion" in shown.json()["capabilities"]
    assert post(scene, "/api/show", model="closed-big").status_code == 404


def test_the_audit_says_what_left_for_whom(scene):
    post(scene, "/v1/chat/completions", model=BIG, messages=ASK)
    rows = httpx.get(f"{scene.daemon.url}/admin/audit", params={"limit": 1000}).json()["data"]
    row = [row for row in rows if row["action"] == "upstream.request"][-1]
    assert row["actor"] == "local" and row["object"].startswith("upstream:basement model:their-big")
    assert row["object"].endswith("messages:1 characters:5 tools:0")


def test_another_edgeagent_answers_as_a_model_here_does(scene, tales_client):
    schema = {"type": "object", "properties": {"a": {"type": "boolean"}}, "required": ["a"],
              "additionalProperties": False}  # fmt: skip
    wanted: dict[str, Any] = {
        "messages": ASK, "max_tokens": 24, "temperature": 0, "logprobs": True, "top_logprobs": 2,
    }  # fmt: skip
    with scene.daemon.client() as client:
        here = tales_client.chat.completions.create(model=TALES_CHAT, **wanted)
        there = client.chat.completions.create(model=FAR, **wanted)
        assert there.usage.prompt_tokens == here.usage.prompt_tokens
        first = there.choices[0].logprobs.content[0]
        assert len(first.top_logprobs) == 2 and bytes(first.bytes).decode(errors="replace")
        pieces = list(
            client.chat.completions.create(
                model=FAR, messages=ASK, max_tokens=9, n=2, stream=True,
                stream_options={"include_usage": True}, extra_body={"ignore_eos": True},
            )
        )  # fmt: skip
        ends = [c.finish_reason for p in pieces for c in p.choices if c.finish_reason]
        assert ends == ["length", "length"] and pieces[-1].usage.completion_tokens == 18
        called = client.chat.completions.create(
            model=FAR, messages=ASK, tools=[TOOL], tool_choice="required", max_tokens=200
        )
        (call,) = called.choices[0].message.tool_calls[:1]
        assert call.function.name == "light"
        formed = client.chat.completions.create(
            model=FAR, messages=ASK, max_tokens=200,
            response_format={"type": "json_schema",
                             "json_schema": {"name": "x", "schema": schema, "strict": True}},
        )  # fmt: skip
        assert set(json.loads(formed.choices[0].message.content)) == {"a"}
        continued = client.completions.create(model=FAR, prompt="Once upon", max_tokens=4)
        assert continued.usage.completion_tokens <= 4
    said = post(scene, "/v1/messages", model=FAR, messages=ASK, max_tokens=4).json()
    assert said["usage"]["output_tokens"] <= 4 and said["stop_reason"] in ("max_tokens", "end_turn")
    too_long = post(scene, "/v1/chat/completions", model=FAR,
                    messages=[{"role": "user", "content": "word " * 30_000}])  # fmt: skip
    assert (
        too_long.status_code == 400
        and too_long.json()["error"]["code"] == "context_length_exceeded"
    )
