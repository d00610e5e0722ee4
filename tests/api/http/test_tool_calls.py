"""Tools as the official client uses them: choices, streams, histories, parsing, with a real model."""

# ruff: noqa: E501
from __future__ import annotations

import json
from typing import Any, Literal

import jsonschema
import openai
import pytest
from pydantic import BaseModel, Field

from tests.conftest import SHALLOW, TALES_CHAT


@pytest.fixture(scope="module")
def client(tales_client: openai.OpenAI) -> openai.OpenAI:
    return tales_client


ASK: list[Any] = [{"role": "user", "content": "Switch the lamp in the hall on, please."}]
LAMP_SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"on": {"type": "boolean"}, "room": {"enum": ["hall", "attic", None]}, "level": {"type": "integer", "minimum": 0, "maximum": 9}},
    "required": ["on", "room"],
    "additionalProperties": False,
}  # fmt: skip
LAMP = {
    "type": "function",
    "function": {"name": "lamp", "description": "Switch a lamp", "parameters": LAMP_SCHEMA},
}
TIME = {"type": "function", "function": {"name": "get_time"}}
SCHEMAS = {"lamp": LAMP_SCHEMA, "get_time": {"maxProperties": 0}}


class Lamp(BaseModel):
    """Switch a lamp."""

    on: bool
    room: Literal["hall", "attic"]
    level: int = Field(ge=0, le=9)


def create(client: openai.OpenAI, **kwargs: Any) -> Any:
    options: dict[str, Any] = {
        "model": TALES_CHAT,
        "messages": ASK,
        "max_tokens": 60,
        "temperature": 0,
        "tools": [LAMP, TIME],
    }
    return client.chat.completions.create(**(options | kwargs))


def check(message: Any) -> None:
    """Calls of the tools, with arguments by their schemas."""
    for call in message.tool_calls:
        assert call.type == "function" and call.id.startswith("call_")
        jsonschema.validate(json.loads(call.function.arguments), SCHEMAS[call.function.name])
    assert len({call.id for call in message.tool_calls}) == len(message.tool_calls)


@pytest.mark.parametrize("temperature", [0, 1])
def test_a_required_call_comes_and_validates(client, temperature):
    answer = create(client, tool_choice="required", temperature=temperature, seed=3, n=2)
    for choice in answer.choices:
        if choice.finish_reason != "length":
            assert choice.finish_reason == "tool_calls"
            assert choice.message.content is None
            check(choice.message)


def test_a_named_tool_is_the_one_that_is_called(client):
    choice = create(
        client, tool_choice={"type": "function", "function": {"name": "get_time"}}
    ).choices[0]
    (call,) = choice.message.tool_calls
    assert (call.function.name, call.function.arguments) == ("get_time", "{}")
    assert choice.finish_reason == "tool_calls"


def test_only_the_allowed_tools_are_called(client):
    allowed = {
        "mode": "required",
        "tools": [{"type": "function", "function": {"name": "get_time"}}],
    }
    choice = create(
        client, tool_choice={"type": "allowed_tools", "allowed_tools": allowed}
    ).choices[0]
    assert {call.function.name for call in choice.message.tool_calls} == {"get_time"}


def test_without_parallel_calls_there_is_one_at_most(shallow_client):
    for seed in range(2):
        choice = create(
            shallow_client,
            model=SHALLOW,
            tool_choice="required",
            parallel_tool_calls=False,
            temperature=1,
            seed=seed,
        ).choices[0]
        assert len(choice.message.tool_calls) == 1 and choice.finish_reason == "tool_calls"
        check(choice.message)


def test_with_none_no_tool_is_called_or_shown(client):
    bare = create(client, tools=None, max_tokens=5)
    none = create(client, tool_choice="none", max_tokens=5)
    assert none.choices[0].message.tool_calls is None
    assert none.choices[0].finish_reason in ("length", "stop")
    assert none.usage.prompt_tokens == bare.usage.prompt_tokens


def test_with_auto_an_answer_may_be_words(shallow_client):
    answer = create(
        shallow_client, model=SHALLOW, max_tokens=8, logit_bias={"28": 100}
    )  # a comma, again and again
    assert answer.choices[0].message.tool_calls is None
    assert answer.choices[0].message.content == "," * 8
    assert answer.usage.prompt_tokens > 60, "the tools are in the prompt"


def test_a_stream_adds_up_to_the_whole_answer(client):
    options = {"tool_choice": "required", "parallel_tool_calls": False}
    whole = create(client, **options).choices[0]
    with client.chat.completions.stream(
        model=TALES_CHAT, messages=ASK, tools=[LAMP, TIME], temperature=0, max_tokens=60, **options
    ) as stream:
        kinds = [event.type for event in stream]
        final = stream.get_final_completion().choices[0]
    assert (
        "tool_calls.function.arguments.delta" in kinds
        and "tool_calls.function.arguments.done" in kinds
    )
    ours, theirs = final.message.tool_calls[0].function, whole.message.tool_calls[0].function
    assert (ours.name, ours.arguments) == (theirs.name, theirs.arguments)
    assert final.message.content is None and final.finish_reason == "tool_calls"
    check(final.message)


def test_streamed_deltas_have_the_shape_that_the_sdk_adds_up(client):
    chunks = list(
        create(
            client,
            tool_choice="required",
            parallel_tool_calls=False,
            stream=True,
            stream_options={"include_usage": True},
        )
    )
    deltas = [chunk.choices[0].delta for chunk in chunks if chunk.choices]
    calls = [delta.tool_calls[0] for delta in deltas if delta.tool_calls]
    first, *later = calls
    assert (first.index, first.type, first.function.arguments) == (0, "function", "") and first.id
    assert later and all(c.id is None and c.type is None and c.function.name is None for c in later)
    assert [d.role for d in deltas if d.role] == ["assistant"]
    assert [
        c.choices[0].finish_reason for c in chunks if c.choices and c.choices[0].finish_reason
    ] == ["tool_calls"]
    assert len({chunk.id for chunk in chunks}) == 1 and chunks[-1].usage.completion_tokens > 5


def test_the_clients_parse_gives_arguments_as_a_model(shallow_client):
    answer = shallow_client.chat.completions.parse(
        model=SHALLOW, messages=ASK, tools=[openai.pydantic_function_tool(Lamp)], tool_choice="required",
        parallel_tool_calls=False, max_tokens=60, temperature=1, seed=5,
    )  # fmt: skip
    (call,) = answer.choices[0].message.tool_calls
    assert isinstance(call.function.parsed_arguments, Lamp)


def test_a_call_that_is_cut_off_says_length_and_the_clients_parse_raises(client):
    choice = create(
        client, tool_choice={"type": "function", "function": {"name": "lamp"}}, max_tokens=14
    ).choices[0]
    assert choice.finish_reason == "length"
    with pytest.raises(openai.LengthFinishReasonError):
        client.chat.completions.parse(
            model=TALES_CHAT,
            messages=ASK,
            tools=[openai.pydantic_function_tool(Lamp)],
            tool_choice="required",
            max_tokens=14,
        )


def test_calls_and_results_can_be_sent_again(client):
    message = create(client, tool_choice="required", parallel_tool_calls=False).choices[0].message
    call = message.tool_calls[0]
    history = [
        *ASK,
        message.model_dump(exclude_none=True),
        {"role": "tool", "tool_call_id": call.id, "content": "It is on."},
    ]
    answer = create(client, messages=history, max_tokens=5)
    assert answer.choices[0].finish_reason in ("length", "stop", "tool_calls")
    parts = [{"type": "text", "text": "It is "}, {"type": "text", "text": "on."}]
    again = create(client, messages=[*history[:-1], history[-1] | {"content": parts}], max_tokens=1)
    assert again.usage.prompt_tokens == answer.usage.prompt_tokens


def test_calls_of_one_conversation_share_its_prefix(client):
    first = create(client, tool_choice="required", parallel_tool_calls=False)
    message, call = first.choices[0].message, first.choices[0].message.tool_calls[0]
    history = [
        *ASK,
        message.model_dump(exclude_none=True),
        {"role": "tool", "tool_call_id": call.id, "content": "It is on."},
    ]
    second = create(
        client, messages=history, tool_choice="required", parallel_tool_calls=False, max_tokens=20
    )
    assert second.usage.prompt_tokens_details.cached_tokens >= first.usage.prompt_tokens - 1


def test_a_schema_that_cannot_be_enforced_is_a_400_before_any_token(client):
    bad = {
        "type": "function",
        "function": {
            "name": "bad",
            "strict": True,
            "parameters": {"type": "object", "properties": {"a": {"not": {}}}},
        },
    }
    for stream in (False, True):
        with pytest.raises(
            openai.BadRequestError, match=r"Tool 'bad'.*`not` at #/properties/a"
        ) as caught:
            create(client, tools=[LAMP, bad], stream=stream)
        assert (caught.value.code, caught.value.param) == ("unsupported_parameter", "tools")


def test_with_a_response_format_an_answer_is_a_call_or_has_the_format(client):
    wanted = {
        "type": "json_schema",
        "json_schema": {
            "name": "a",
            "schema": {
                "type": "object",
                "properties": {"mood": {"enum": ["good", "bad"]}},
                "required": ["mood"],
            },
        },
    }
    for seed in range(4):
        choice = create(
            client, response_format=wanted, temperature=1, seed=seed, parallel_tool_calls=False
        ).choices[0]
        if choice.message.tool_calls:
            check(choice.message)
        else:
            assert json.loads(choice.message.content)["mood"] in ("good", "bad")
