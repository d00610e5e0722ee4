"""Requests that are wrong: each a clear 4xx in OpenAI's shape, and never a 5xx."""

# ruff: noqa: E501
from __future__ import annotations

import json
from typing import Any

import httpx
import openai
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.api.wire import error_of, exchange, post, request
from tests.conftest import TALES_CHAT, DaemonProcess, n_examples

CHAT = "/v1/chat/completions"
ASK = [{"role": "user", "content": "Hi"}]


@pytest.fixture(scope="module")
def client(tales_client: openai.OpenAI) -> openai.OpenAI:
    return tales_client


def refused(client: openai.OpenAI, **kwargs: Any) -> openai.BadRequestError:
    options: dict[str, Any] = {"model": TALES_CHAT, "messages": ASK, "max_tokens": 1}
    body = options | kwargs
    with pytest.raises(openai.BadRequestError) as caught:
        client.post(CHAT[3:], body=body, cast_to=object)
    error_of(caught.value.response.json())
    assert caught.value.response.headers["x-should-retry"] == "false"
    assert caught.value.request_id
    return caught.value


def test_an_unknown_model_is_a_404_with_its_own_code(client):
    for stream in (False, True):
        with pytest.raises(openai.NotFoundError, match="gpt-4o") as caught:
            client.chat.completions.create(model="gpt-4o", messages=ASK, stream=stream)
        assert caught.value.code == "model_not_found"
        assert caught.value.param == "model"
        error_of(caught.value.response.json())


@pytest.mark.parametrize(
    "model", ["../../etc/passwd", "a\x00b", "UPPER", "x" * 201, "/", "..", "né"]
)
def test_a_name_that_is_no_model_id_reaches_no_file(tales_daemon: DaemonProcess, model):
    reply = exchange(tales_daemon.url, post(CHAT, {"model": model, "messages": ASK}))
    assert reply.status in (400, 404)
    assert reply.error["param"] == "model"


def test_an_unknown_path_is_a_404(client):
    with pytest.raises(openai.NotFoundError) as caught:
        client.get("/nothing-here", cast_to=object)
    assert caught.value.code == "not_found"


def test_an_unknown_model_object_is_a_404(client):
    with pytest.raises(openai.NotFoundError) as caught:
        client.models.retrieve("nobody/knows-this")
    assert caught.value.code == "model_not_found"


def test_a_method_that_the_path_lacks_is_a_405(client):
    with pytest.raises(openai.APIStatusError) as caught:
        client.get("/completions", cast_to=object)
    assert caught.value.status_code == 405
    assert caught.value.code == "method_not_allowed"


@pytest.mark.parametrize(
    ("path", "methods"),
    [("/v1/models", "GET, HEAD, OPTIONS"), ("/v1/completions", "OPTIONS, POST")],
)
def test_a_path_says_by_which_methods_it_is_answered(
    tales_daemon: DaemonProcess, path: str, methods: str
):
    url = tales_daemon.url + path
    assert httpx.options(url).headers.get_list("allow") == [methods]
    assert httpx.delete(url).headers.get_list("allow") == [methods]
    assert httpx.head(url).status_code == (200 if "HEAD" in methods else 405)


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"   ",
        b"{",
        b'{"messages": [}',
        b'{"messages": []} x',
        b"[]",
        b"null",
        b"3",
        b'"text"',
        b"\xff\xfe\x00",
        b'{"messages": [{"role": "user", "content": "\xff\xff"}]}',
        b'{"messages": [{"role": "user", "content": "\\ud800"}]}',
        b'{"messages": [{"role": "user", "content": "Hi"}], "temperature": NaN}',
        b'{"messages": [{"role": "user", "content": "Hi"}], "temperature": Infinity}',
        b'{"messages": [{"role": "user", "content": "Hi"}], "temperature": -Infinity}',
        b'{"messages": [{"role": "user", "content": "Hi"}], "temperature": 1e999}',
        b'{"messages": [{"role": "user", "content": "Hi"}], "seed": 1' + b"0" * 5000 + b"}",
        b"[" * 100_000 + b"]" * 100_000,
        b'{"messages": ' + b"[" * 100_000,
        b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
    ],
    ids=lambda raw: repr(raw[:40])[2:-1],
)
def test_what_is_no_json_object_is_a_400(tales_daemon: DaemonProcess, raw):
    for path in (CHAT, "/v1/completions"):
        reply = exchange(tales_daemon.url, post(path, raw))
        assert reply.status == 400
        assert reply.error["type"] == "invalid_request_error"
        assert reply.headers["x-request-id"].startswith("req_")


WRONG_TYPES: dict[str, list[Any]] = {
    "model": [5, True, [], {}, "x" * 300],
    "messages": [None, 5, "text", {}, [], [5], [None], [[]], [{}], [{"role": "user", "content": 5}],
                 [{"role": "nobody", "content": "Hi"}], [{"content": "Hi"}], [{"role": "user", "content": [5]}],
                 [{"role": "user", "content": [{"type": "text"}]}], [{"role": "user", "content": [{"text": "Hi"}]}],
                 [{"role": "user", "content": [{"type": "text", "text": 5}]}],
                 [{"role": "user", "content": {"type": "text", "text": "Hi"}}]],
    "stream": ["yes", 1, [], {}],
    "stream_options": [5, "usage", [], {"include_usage": 3}, {"unknown": True}],
    "n": [0, -1, 17, 1.5, "2", True, [], 1 << 70],
    "stop": [5, "", [""], [5], {}, ["x"] * 17, "x" * 257, [None]],
    "seed": ["7", 1.5, [], True, 1 << 63, -(1 << 63) - 1],
    "temperature": ["hot", "0.5", -0.1, 2.1, [], True, 1e308],
    "top_p": ["x", -1, 1.1, []],
    "presence_penalty": [3, -3, "x"],
    "frequency_penalty": [3, -3, "x"],
    "logit_bias": [5, [], {"x": 1}, {"5": "x"}, {"5": 101}, {"5": None}, {"1.5": 1}, {"-1": 1}, {"9" * 30: 1}],
    "max_tokens": [0, -1, "5", 1.5, True, [], 1 << 31, 1 << 70],
    "max_completion_tokens": [0, -1, "5", 1.5, []],
    "top_k": [-1, "x", 1.5, 1 << 40],
    "min_p": [-1, 2, "x"],
    "typical_p": [0, 2, "x"],
    "repeat_penalty": [0, -1, 11, "x"],
    "repeat_last_n": [-1, 5000, "x"],
    "ignore_eos": [5, "x", []],
    "metadata": [5, [], {"a": 5}],
    "store": [5, "x"],
    "user": [5, []],
    "logprobs": [5, "x", []],
    "top_logprobs": [-1, 21, "x", 1.5, True],
}  # fmt: skip


@pytest.mark.parametrize("field", WRONG_TYPES)
def test_a_field_of_the_wrong_type_or_size_is_a_400_that_names_it(client, field):
    for value in WRONG_TYPES[field]:
        extra = {"stream": True} if field == "stream_options" else {}
        error = refused(client, **{field: value}, **extra)
        assert (error.param or "").split(".")[0] == field, (field, value, error.message)
        assert field in error.message


def test_a_prompt_of_the_wrong_type_is_a_400_that_names_it(tales_daemon: DaemonProcess):
    wrong = [
        None,
        5,
        {},
        [],
        [[]],
        [None],
        [5.5],
        ["a", 5],
        [-1],
        [[5, "a"]],
        [1 << 40],
        ["a"] * 65,
    ]
    for prompt in wrong:
        reply = exchange(tales_daemon.url, post("/v1/completions", {"prompt": prompt}))
        assert reply.status == 400, prompt
        assert (reply.error["param"] or "").split(".")[0] == "prompt", reply.error
    assert exchange(tales_daemon.url, post("/v1/completions", {})).error["param"] == "prompt"


def test_a_number_that_is_too_large_anywhere_in_a_message_is_no_500(client):
    for value in (1 << 70, [1 << 70], {"a": -(1 << 70)}):
        error = refused(client, messages=[{"role": "user", "content": "Hi", "note": value}])
        assert error.param is not None and error.param.startswith("messages")


def test_what_a_message_nests_deeply_hurts_nobody(tales_daemon: DaemonProcess):
    workers = tales_daemon.workers()
    assert workers
    for depth in (50, 200, 260, 900, 970, 2000):
        note = b"[" * depth + b"]" * depth
        body = (
            b'{"max_tokens": 1, "messages": [{"role": "user", "content": "Hi", "note": %s}]}' % note
        )
        reply = exchange(tales_daemon.url, post(CHAT, body))
        assert reply.status in (200, 400)
        assert reply.status == 200 or reply.error["type"] == "invalid_request_error"
    assert tales_daemon.workers() == workers


@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        ("temprature", "temperature"),
        ("max_token", "max_tokens"),
        ("Stream", "stream"),
        ("topp", "top_p"),
    ],
)
def test_an_unknown_field_is_refused_with_the_nearest_name(client, wrong, right):
    error = refused(client, **{wrong: 1})
    assert error.param == wrong
    assert f"`{right}`" in error.message


def test_an_unknown_field_like_no_other_is_refused_by_name(client):
    assert refused(client, xyzzy=1).param == "xyzzy"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("functions", [{"name": "f"}]),
        ("function_call", {"name": "f"}),
        ("modalities", ["text", "audio"]),
        ("audio", {"voice": "alloy"}),
    ],
)
def test_what_is_not_supported_is_refused_by_name(client, name, value):
    error = refused(client, **{name: value})
    assert error.param == name
    assert error.code == "unsupported_parameter"
    assert name in error.message


def test_messages_must_not_be_empty(client):
    assert refused(client, messages=[]).param == "messages"


@pytest.mark.parametrize("stream", [False, True])
def test_a_prompt_longer_than_the_context_is_a_400_with_the_numbers(client, stream):
    error = refused(client, messages=[{"role": "user", "content": "word " * 6000}], stream=stream)
    assert error.code == "context_length_exceeded"
    n_prompt = int(error.message.split(" tokens")[0].split()[-1])
    assert n_prompt > 6000
    assert "4096" in error.message or "2048" in error.message or "8192" in error.message


def test_prompt_and_answer_longer_than_the_context_are_a_400_with_the_numbers(client):
    error = refused(client, max_tokens=4096)
    assert error.code == "context_length_exceeded"
    assert error.param == "max_tokens"
    assert "4096" in error.message


def test_after_a_refusal_the_next_request_is_answered(client):
    refused(client, messages=[{"role": "user", "content": "word " * 6000}])
    answer = client.chat.completions.create(model=TALES_CHAT, messages=ASK, max_tokens=1)
    assert answer.usage.completion_tokens == 1


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3)
    ),
    max_leaves=6,
)


@settings(
    max_examples=n_examples(150),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    field=st.sampled_from([*WRONG_TYPES, "prompt", "tools", "surprise"]),
    value=JSON_VALUES,
    path=st.sampled_from([CHAT, "/v1/completions"]),
)
def test_no_value_of_any_field_is_a_500(tales_daemon: DaemonProcess, field, value, path):
    base = {"messages": ASK} if path == CHAT else {"prompt": "Hi"}
    body = base | {"max_tokens": 1, field: value}
    if body.get("max_tokens") is None:
        body["max_tokens"] = 1
    reply = exchange(tales_daemon.url, post(path, json.dumps(body).encode()))
    assert reply.status in (200, 400, 404)
    if reply.status != 200:
        assert reply.error["message"]


@settings(
    max_examples=n_examples(100),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(raw=st.binary(max_size=200))
def test_no_bytes_are_a_500(tales_daemon: DaemonProcess, raw):
    reply = exchange(tales_daemon.url, post(CHAT, raw))
    assert reply.status == 400
    assert reply.error["type"] == "invalid_request_error"


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/"),
        ("GET", "//"),
        ("GET", "/%ff"),
        ("GET", "/v1/models/%00"),
        ("GET", "/v1/models/..%2f..%2fetc%2fpasswd"),
        ("GET", "/v1/models/a%0d%0aX-Evil:%201"),
        ("GET", "/v1/chat/completions"),
        ("DELETE", "/health"),
        ("FOO", "/health"),
        ("PUT", "/v1/models"),
        ("TRACE", "/v1/models"),
        ("POST", "/v1/nothing"),
        ("GET", "*"),
        ("GET", "http://localhost/v1/nothing"),
        ("GET", "/v1/models?" + "a=" * 5000),
    ],
)
def test_every_path_and_method_answers_in_the_same_shape(tales_daemon: DaemonProcess, method, path):
    reply = exchange(tales_daemon.url, request(method, path, "Content-Type: application/json"))
    assert reply.status in (200, 400, 404, 405)
    assert reply.headers["x-request-id"].startswith("req_")
    assert "x-evil" not in reply.headers
    if reply.status != 200:
        assert reply.error["code"] in (
            "not_found",
            "model_not_found",
            "method_not_allowed",
            "bad_request",
        )
        assert reply.headers["x-should-retry"] == "false"
