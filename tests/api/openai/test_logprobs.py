"""Log-probabilities on every API that has them, as the official clients see them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import ollama
import openai
import pytest

from tests.conftest import SHALLOW, SMOLLM, DaemonProcess

ASK = [{"role": "user", "content": "Write one line with a café and a 🙂 in it."}]
COLD = {"model": SHALLOW, "temperature": 0}
BYTES = {"logit_bias": {"28": 100}}  # a comma, whatever else the model would say


@pytest.fixture(scope="module")
def client(shallow_client: openai.OpenAI) -> openai.OpenAI:
    return shallow_client


@pytest.fixture(scope="module")
def lenient(smollm_daemon: DaemonProcess) -> Iterator[openai.OpenAI]:
    """Strict mode wants a finish_reason in every piece of a streamed completion."""
    with smollm_daemon.client(_strict_response_validation=False) as client:
        yield client


def chat(client: openai.OpenAI, **kwargs: Any) -> Any:
    options = COLD | {"messages": ASK, "max_tokens": 16, "logprobs": True}
    return client.chat.completions.create(**(options | kwargs))


def check(tokens: list[Any], text: str, n_top: int) -> None:
    """Tokens add up to the text, and each is as probable as what stands beside it says."""
    assert "".join(token.token for token in tokens) == text
    assert b"".join(bytes(token.bytes) for token in tokens).decode() == text
    for token in tokens:
        assert token.logprob <= 0
        top = token.top_logprobs
        assert len(top) == n_top
        assert [t.logprob for t in top] == sorted((t.logprob for t in top), reverse=True)
        assert sum(math.exp(t.logprob) for t in top) <= 1.0001
        if n_top:  # greedy
            assert (token.bytes, token.logprob) == (top[0].bytes, top[0].logprob)


@pytest.mark.parametrize("n_top", [None, 0, 3, 20])
def test_a_chat_has_one_for_each_token_of_its_text(client, n_top):
    answer = chat(client, top_logprobs=n_top)
    (choice,) = answer.choices
    check(choice.logprobs.content, choice.message.content, n_top or 0)
    assert len(choice.logprobs.content) == answer.usage.completion_tokens
    assert choice.logprobs.refusal is None


def test_a_chat_that_did_not_ask_has_none(client):
    assert chat(client, logprobs=None).choices[0].logprobs is None
    assert chat(client, logprobs=False, top_logprobs=0).choices[0].logprobs is None
    assert all(c.choices[0].logprobs is None for c in chat(client, logprobs=False, stream=True))


def test_a_stream_s_tokens_come_with_its_pieces_and_add_up_to_the_text(client):
    choices = [
        choice
        for chunk in chat(client, stream=True, top_logprobs=2, n=2)
        for choice in chunk.choices
    ]
    for index in (0, 1):
        mine = [choice for choice in choices if choice.index == index]
        tokens = [t for c in mine if c.logprobs is not None for t in c.logprobs.content]
        check(tokens, "".join(c.delta.content or "" for c in mine), 2)
        assert mine[0].logprobs is None and mine[-1].logprobs is None


def test_what_a_stop_string_cuts_off_has_none(smollm_client):
    sure = {"model": SMOLLM, "max_tokens": 8}
    whole = chat(smollm_client, **sure).choices[0].message.content
    stop = whole[len(whole) // 2 :][:3]  # somewhere within its tokens
    (choice,) = chat(smollm_client, **sure, stop=stop).choices
    assert choice.finish_reason == "stop" and stop not in choice.message.content
    check(choice.logprobs.content, choice.message.content, 0)


def test_bias_does_not_change_them(client):
    (choice,) = chat(client, max_tokens=2, top_logprobs=1, **BYTES).choices
    first = choice.logprobs.content[0]
    assert first.token == "," and first.logprob < -3, "the model would not have said so"
    assert first.top_logprobs[0].token != ","


def test_of_a_form_they_are_among_what_it_allows(client):
    schema = {"type": "object", "properties": {"sky": {"enum": ["blue", "green"]}}}
    schema |= {"required": ["sky"], "additionalProperties": False}
    form = {"type": "json_schema", "json_schema": {"name": "s", "schema": schema, "strict": True}}
    answer = chat(client, response_format=form, max_tokens=30, top_logprobs=5)
    (choice,) = answer.choices
    tokens = choice.logprobs.content
    assert "".join(t.token for t in tokens) == choice.message.content
    assert len(tokens) == answer.usage.completion_tokens
    forced = [t for t in tokens if len(t.top_logprobs) == 1]
    assert forced and all(t.logprob == 0 == t.top_logprobs[0].logprob for t in forced)
    chosen = [t for t in tokens if len(t.top_logprobs) > 1]
    for token in chosen:
        if len(token.top_logprobs) < 5:  # all there was
            total = sum(math.exp(t.logprob) for t in token.top_logprobs)
            assert total == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"top_logprobs": 21}, "top_logprobs"),
        ({"top_logprobs": -1}, "top_logprobs"),
        ({"top_logprobs": 3, "logprobs": None}, "top_logprobs"),
        ({"top_logprobs": 3, "logprobs": False}, "top_logprobs"),
        ({"logprobs": 3}, "logprobs"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_what_cannot_be_told_is_a_400_that_names_the_field(client, fields, param):
    with pytest.raises(openai.BadRequestError, match=param) as caught:
        chat(client, **fields)
    assert caught.value.param == param


def test_a_completion_has_four_lists(smollm_client, lenient):
    options = COLD | {"model": SMOLLM, "prompt": "1, 2, 3,", "max_tokens": 8, "logprobs": 2}
    answer = smollm_client.completions.create(**options)
    (choice,) = answer.choices
    shown = choice.logprobs
    assert "".join(shown.tokens) == choice.text
    assert len(shown.tokens) == len(shown.token_logprobs) == len(shown.top_logprobs) == 8
    for token, logprob, top, offset in zip(
        shown.tokens, shown.token_logprobs, shown.top_logprobs, shown.text_offset, strict=True
    ):
        assert choice.text[offset:].startswith(token)
        assert top[token] == logprob == max(top.values()) and len(top) == 2
    pieces = [c.choices[0] for c in lenient.completions.create(**options, stream=True)]
    assert "".join(piece.text for piece in pieces) == choice.text
    told = [piece.logprobs for piece in pieces if piece.logprobs is not None]
    for name in ("tokens", "text_offset"):
        assert [x for one in told for x in getattr(one, name)] == getattr(shown, name)


def test_a_completion_tells_of_the_drawn_token_alone_or_refuses_more_than_five(client):
    options = COLD | {"prompt": "1, 2, 3,", "max_tokens": 2}
    (choice,) = client.completions.create(**options, logprobs=0).choices
    assert [list(top) for top in choice.logprobs.top_logprobs] == [
        [t] for t in choice.logprobs.tokens
    ]
    assert client.completions.create(**options).choices[0].logprobs is None
    with pytest.raises(openai.BadRequestError) as caught:
        client.completions.create(**options, logprobs=6)
    assert caught.value.param == "logprobs"


def test_a_response_has_them_where_it_is_to_include_them(client):
    options = {"model": SHALLOW, "input": "Name a colour.", "max_output_tokens": 12, "store": False}
    include = {"include": ["message.output_text.logprobs"], "temperature": 0}
    made = client.responses.create(**options, **include, top_logprobs=2)
    (part,) = made.output[0].content
    check(part.logprobs, part.text, 2)
    assert client.responses.create(**options).output[0].content[0].logprobs == []
    with client.responses.stream(**options, **include) as stream:
        events = list(stream)
    deltas = [e for e in events if e.type == "response.output_text.delta"]
    assert "".join(t.token for e in deltas for t in e.logprobs) == "".join(e.delta for e in deltas)
    done = next(e for e in events if e.type == "response.output_text.done")
    assert "".join(t.token for t in done.logprobs) == done.text


def test_ollama_s_answers_have_them_too(shallow_daemon: DaemonProcess):
    options = {"model": SHALLOW, "options": {"temperature": 0, "num_predict": 6}}
    with ollama.Client(host=shallow_daemon.url) as llama:
        whole = llama.chat(messages=ASK, logprobs=True, top_logprobs=2, **options)
        assert "".join(t.token for t in whole.logprobs) == whole.message.content
        assert all(t.top_logprobs[0].logprob == t.logprob for t in whole.logprobs)
        parts = list(
            llama.generate(prompt="1, 2, 3,", raw=True, logprobs=True, stream=True, **options)
        )
        tokens = [t.token for part in parts for t in part.logprobs or ()]
        assert "".join(tokens) == "".join(part.response for part in parts)
        assert llama.chat(messages=ASK, **options).logprobs is None
