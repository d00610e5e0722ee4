"""`response_format` as the official client uses it: plain, parsed into pydantic models, streamed."""

# ruff: noqa: E501
from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from typing import Any, Literal

import httpx
import jsonschema
import openai
import psutil
import pytest
from pydantic import BaseModel, Field

from tests.conftest import TALES_CHAT, DaemonProcess, serving


@pytest.fixture(scope="module")
def client(tales_client: openai.OpenAI) -> openai.OpenAI:
    return tales_client


ASK = [{"role": "user", "content": "My laptop is broken and I want my money back. Fill the form."}]


class Intent(StrEnum):
    refund = "refund"
    schedule = "schedule"
    other = "other"


class Cat(BaseModel):
    kind: Literal["cat"]
    lives: int = Field(ge=0, le=9)


class Dog(BaseModel):
    kind: Literal["dog"]
    name: str = Field(max_length=12)


class Ticket(BaseModel):
    """Optional fields, enums, a union told apart by a constant, a list, nested objects."""

    intent: Intent
    reference: str = Field(pattern=r"^[A-Z]{3}-[0-9]{4}$")
    urgent: bool
    score: float = Field(ge=0, le=1)
    note: str | None = Field(max_length=20)
    pets: list[Cat | Dog] = Field(max_length=2)


DIGIT = {"type": "integer", "minimum": 0, "maximum": 9}
SCHEMA = {
    "type": "object",
    "properties": {"colour": {"enum": ["red", "green"]}, "n": {"type": "integer", "maximum": 9, "minimum": 0}},
    "required": ["colour", "n"],
    "additionalProperties": False,
}  # fmt: skip


def wanted(schema: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": {"name": "form", "schema": schema, **more}}


def create(client: openai.OpenAI, **kwargs: Any) -> Any:
    options = {"model": TALES_CHAT, "messages": ASK, "max_tokens": 200, "temperature": 0}
    return client.chat.completions.create(**(options | kwargs))


@pytest.mark.parametrize("temperature", [0, 1])
def test_the_clients_parse_gives_a_model(client, temperature):
    answer = client.chat.completions.parse(
        model=TALES_CHAT,
        messages=ASK,
        response_format=Ticket,
        temperature=temperature,
        max_tokens=300,
    )
    assert isinstance(answer.choices[0].message.parsed, Ticket)
    assert answer.choices[0].finish_reason == "stop"


def test_the_clients_stream_gives_a_model(client):
    with client.chat.completions.stream(
        model=TALES_CHAT, messages=ASK, response_format=Ticket, temperature=0, max_tokens=300
    ) as stream:
        for _ in stream:
            pass
        final = stream.get_final_completion()
    assert isinstance(final.choices[0].message.parsed, Ticket)


@pytest.mark.parametrize("strict", [True, False, None])
def test_a_schema_binds_whether_strict_or_not(client, strict):
    answer = create(client, response_format=wanted(SCHEMA, strict=strict), n=3, temperature=1)
    for choice in answer.choices:
        jsonschema.validate(json.loads(choice.message.content), SCHEMA)
        assert choice.finish_reason == "stop"


def test_a_stream_has_the_text_of_the_whole_answer_and_counts_what_was_forced(client):
    options = {"response_format": wanted({"const": {"forced": "the whole of it"}})}
    whole = create(client, **options)
    chunks = list(create(client, stream=True, stream_options={"include_usage": True}, **options))
    text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert text == whole.choices[0].message.content == '{"forced":"the whole of it"}'
    assert chunks[-1].usage.completion_tokens == whole.usage.completion_tokens > 4


def test_a_json_object_is_one(client):
    for seed in range(3):
        choice = create(
            client, response_format={"type": "json_object"}, temperature=1, seed=seed
        ).choices[0]
        if choice.finish_reason == "stop":
            assert isinstance(json.loads(choice.message.content), dict)
        else:
            assert choice.finish_reason == "length" and choice.message.content.startswith("{")


def test_an_answer_whose_tokens_run_out_is_closed_and_says_length(client):
    schema = {
        "type": "object",
        "properties": {"story": {"type": "string", "minLength": 400}, "n": DIGIT},
        "required": ["story", "n"],
        "additionalProperties": False,
    }
    short = schema | {"properties": {"story": {"type": "string"}, "n": DIGIT}}
    told = client.chat.completions.create(
        model=TALES_CHAT, max_tokens=40, temperature=1, seed=4, response_format=wanted(short),
        messages=[{"role": "user", "content": "Tell a long, long story."}],
    ).choices[0]  # fmt: skip
    jsonschema.validate(json.loads(told.message.content), short)
    # Where there is no room for any whole answer it is cut, as it would be without a schema.
    cut = client.chat.completions.create(
        model=TALES_CHAT, max_tokens=10, messages=ASK, response_format=wanted(schema)
    ).choices[0]
    assert cut.finish_reason == "length" and cut.message.content.startswith('{"story":"')


def test_an_answer_that_is_cut_off_says_length_and_the_clients_parse_raises(client):
    answer = create(client, response_format=wanted(SCHEMA), max_tokens=3)
    assert answer.choices[0].finish_reason == "length"
    # The shortest answer has more tokens: it is whole all the same.
    assert answer.usage.completion_tokens > 3
    jsonschema.validate(json.loads(answer.choices[0].message.content), SCHEMA)
    with pytest.raises(openai.LengthFinishReasonError):
        client.chat.completions.parse(
            model=TALES_CHAT, messages=ASK, response_format=Ticket, max_tokens=3
        )


def test_free_text_is_as_free_as_without_a_format(client):
    # One token that the model is forced to: see test_chat on close calls.
    forced = {"logit_bias": {"28": 100}, "max_tokens": 6}
    free = create(client, **forced).choices[0].message.content
    assert (
        create(client, response_format={"type": "text"}, **forced).choices[0].message.content
        == free
    )


def test_a_bias_and_an_ignored_end_do_not_break_the_form(client):
    answer = create(
        client,
        response_format=wanted(SCHEMA),
        logit_bias={"28": 100, "2": 100},
        extra_body={"ignore_eos": True},
    )
    jsonschema.validate(json.loads(answer.choices[0].message.content), SCHEMA)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("schema", "code", "said"),
    [
        ({"type": "object", "not": {}}, "unsupported_parameter", "`not` at #"),
        ({"type": "strin"}, "invalid_parameter", "`type` at #/type"),
        ({"items": {"minItems": -1}}, "invalid_parameter", "#/items/minItems"),
        ({"$ref": "http://example.com/x"}, "unsupported_parameter", r"\$ref"),
        ({"type": "string", "pattern": "("}, "invalid_parameter", "`pattern` at #"),
        ({"type": "string", "minLength": 3, "maxLength": 1}, "schema_unsatisfiable", "minLength"),
    ],
)
def test_a_bad_schema_is_a_400_before_any_token(client, stream, schema, code, said):
    with pytest.raises(openai.BadRequestError, match=said) as caught:
        create(client, response_format=wanted(schema, strict=True), stream=stream)
    assert (caught.value.code, caught.value.param) == (code, "response_format")


@pytest.mark.parametrize(
    "wrong",
    [
        "json", 5, [], {}, {"type": "xml"}, {"type": "json_schema"}, {"type": "json_object", "json_schema": None, "x": 1},
        {"type": "json_schema", "json_schema": {}}, {"type": "json_schema", "json_schema": {"name": "a"}},
        {"type": "json_schema", "json_schema": {"name": "a b", "schema": {}}}, {"type": "regex"},
        {"type": "json_schema", "json_schema": {"name": "a", "schema": True}}, {"type": "regex", "regex": 5},
        {"type": "text", "regex": "a"}, {"type": "regex", "regex": "a+"}, {"type": "lark", "lark": "start: /a/"},
    ],
)  # fmt: skip
def test_a_malformed_response_format_is_a_400_that_names_it(client, wrong):
    with pytest.raises(openai.BadRequestError) as caught:
        create(client, response_format=wrong)
    assert (caught.value.param or "").split(".")[0] == "response_format"


def test_a_stop_string_that_breaks_the_form_is_an_error_and_no_answer(client):
    with pytest.raises(openai.BadRequestError, match="stop string"):
        create(client, response_format=wanted(SCHEMA), stop="colour")
    with pytest.raises(openai.APIError, match="stop string"):
        list(create(client, response_format=wanted(SCHEMA), stop=["our"], stream=True))


def test_the_daemon_itself_loads_neither_the_grammars_nor_the_checker(
    client, tales_daemon: DaemonProcess
):
    create(client, response_format=wanted(SCHEMA))
    maps = Path(f"/proc/{tales_daemon.pid}/maps").read_text()
    assert "llguidance" not in maps and "jsonschema" not in maps
    (worker,) = tales_daemon.workers()
    assert "llguidance" in Path(f"/proc/{worker.pid}/maps").read_text()
    assert psutil.Process(tales_daemon.pid).is_running()


def test_the_openapi_page_shows_the_formats(tales_daemon: DaemonProcess):
    page = httpx.get(f"{tales_daemon.url}/schema/openapi.json").json()
    body = page["paths"]["/v1/chat/completions"]["post"]["requestBody"]
    schema = body["content"]["application/json"]["schema"]["properties"]["response_format"]
    assert "json_schema" in json.dumps(schema) and "json_object" in json.dumps(schema)


def test_grammars_are_for_daemons_that_allow_them(tales_dir, tmp_path):
    with serving(tales_dir, tmp_path, allow_grammars=True) as daemon, daemon.client() as client:
        asked = {"type": "regex", "regex": "(yes|no), [a-z]{3}!"}
        text = create(client, response_format=asked, temperature=1).choices[0].message.content
        assert text.startswith(("yes, ", "no, ")) and text.endswith("!")
        asked = {"type": "lark", "lark": 'start: "<" /[a-z]{2,4}/ ">"'}
        text = create(client, response_format=asked).choices[0].message.content
        assert text[0] + text[-1] == "<>" and text[1:-1].isalpha()
        for wrong in ({"type": "regex", "regex": "("}, {"type": "lark", "lark": "start: nothing"}):
            with pytest.raises(openai.BadRequestError, match="cannot be enforced"):
                create(client, response_format=wrong)
