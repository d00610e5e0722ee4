"""`/v1/responses` with the official client: events, chains, the background, what is refused."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import httpx
import openai
import pydantic
import pytest

from tests.api.wire import error_of
from tests.conftest import SMOLLM, TALES_CHAT, DaemonProcess, serving, wait_for

INSTRUCTIONS = "You are a harbour master. Answer in one short sentence."
LONG = {"max_output_tokens": 3000, "extra_body": {"ignore_eos": True}}


@pytest.fixture(scope="module")
def daemon(tales_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[DaemonProcess]:
    state = tmp_path_factory.mktemp("responses") / "state"
    with serving(tales_dir, state) as daemon:
        yield daemon


@pytest.fixture(scope="module")
def client(daemon: DaemonProcess) -> Iterator[openai.OpenAI]:
    with daemon.client() as client:
        yield client


def ask(client: openai.OpenAI, question, **options):
    """A response; short, and the same each time, unless told otherwise."""
    given = {"model": TALES_CHAT, "max_output_tokens": 12, "temperature": 0} | options
    return client.responses.create(input=question, **given)


def ended(client: openai.OpenAI, response_id: str):
    """A background response once it has ended."""
    wait_for(lambda: client.responses.retrieve(response_id).status not in ("queued", "in_progress"))
    return client.responses.retrieve(response_id)


# ---- one answer


def test_an_answer_is_complete_and_is_shown_again_as_it_was(client: openai.OpenAI):
    made = ask(client, "Is a ferry a boat?", instructions=INSTRUCTIONS, metadata={"ward": "7"})
    assert made.output_text and made.error is None and made.object == "response"
    assert made.status in ("completed", "incomplete")
    assert (made.output[0].type, made.output[0].role) == ("message", "assistant")
    assert made.usage.input_tokens > 10 and made.usage.output_tokens <= 12
    assert made.usage.output_tokens_details.reasoning_tokens == 0
    assert made.instructions == INSTRUCTIONS and made.metadata == {"ward": "7"}
    assert (made.temperature, made.tool_choice, made.tools) == (0, "auto", [])
    assert client.responses.retrieve(made.id) == made


def test_an_answer_that_was_cut_says_why(client: openai.OpenAI):
    made = ask(client, "Count to one hundred.", max_output_tokens=3)
    assert made.status == "incomplete" and made.completed_at is None
    assert made.incomplete_details.reason == "max_output_tokens"
    assert made.output[0].status == "incomplete" and made.usage.output_tokens == 3


def test_events_come_in_their_order_each_with_the_next_number(daemon: DaemonProcess):
    body = {
        "model": TALES_CHAT,
        "input": "Is a ferry a boat?",
        "max_output_tokens": 6,
        "stream": True,
    }
    answer = httpx.post(f"{daemon.url}/v1/responses", json=body | {"temperature": 0}, timeout=60)
    assert answer.headers["content-type"].startswith("text/event-stream")
    parts = answer.text.strip().split("\n\n")
    blocks = [part.split("\n") for part in parts if not part.startswith(":")]
    events = [json.loads(data.removeprefix("data: ")) for _, data in blocks]
    assert [name for name, _ in blocks] == [f"event: {event['type']}" for event in events]
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    kinds = [event["type"].removeprefix("response.") for event in events]
    n_deltas = kinds.count("output_text.delta")
    assert n_deltas >= 1
    assert kinds == [
        "created", "in_progress", "output_item.added", "content_part.added",
        *["output_text.delta"] * n_deltas,
        "output_text.done", "content_part.done", "output_item.done", "incomplete",
    ]  # fmt: skip
    first, last = events[0]["response"], events[-1]["response"]
    assert first["output"] == [] and first["status"] == "in_progress" and first["usage"] is None
    text = "".join(event.get("delta", "") for event in events)
    item = last["output"][0]
    assert item["content"][0]["text"] == text and first["id"] == last["id"]
    for event in events[3:-2]:
        place = (event["item_id"], event["output_index"], event["content_index"])
        assert place == (item["id"], 0, 0), event["type"]
    assert events[-3]["part"]["text"] == events[-4]["text"] == text
    assert events[-2]["item"] == item


def test_the_client_s_stream_helper_gathers_the_same_answer(smollm_client: openai.OpenAI):
    with smollm_client.responses.stream(
        model=SMOLLM, input="Name three colours.", instructions="Be brief.", temperature=0,
        max_output_tokens=60,
    ) as stream:  # fmt: skip
        texts = [e.delta for e in stream if e.type == "response.output_text.delta"]
        final = stream.get_final_response()
    assert final.output_text == "".join(texts) and final.status == "completed"
    assert smollm_client.responses.retrieve(final.id).output_text == final.output_text


class Ticket(pydantic.BaseModel):
    title: str
    urgent: bool


def test_an_answer_by_a_schema_is_parsed_by_the_client(client: openai.OpenAI):
    parsed = client.responses.parse(
        model=TALES_CHAT, input="The pump of ward 7 is on fire.", text_format=Ticket, temperature=0,
        max_output_tokens=200,
    )  # fmt: skip
    assert isinstance(parsed.output_parsed, Ticket)
    assert parsed.text.format.type == "json_schema" and parsed.text.format.name == "Ticket"
    with client.responses.stream(
        model=TALES_CHAT, input="The pump of ward 7 is on fire.", text_format=Ticket, temperature=0,
        max_output_tokens=200,
    ) as stream:  # fmt: skip
        assert stream.get_final_response().output_parsed == parsed.output_parsed
    plain = ask(
        client, "A colour as JSON", text={"format": {"type": "json_object"}}, max_output_tokens=60
    )
    assert plain.status == "incomplete" or isinstance(json.loads(plain.output_text), dict)


def test_items_of_every_kind_are_read(client: openai.OpenAI):
    items = [
        {"type": "message", "role": "developer", "content": "Be brief."},
        {"role": "user", "content": [{"type": "input_text", "text": "What is the "},
                                     {"type": "input_text", "text": "weather in Hull?"}]},
        {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "abc"},
        {"type": "function_call", "call_id": "c1", "name": "weather", "arguments": '{"at": "Hull"}'},
        {"type": "function_call_output", "call_id": "c1", "output": "Rain."},
        {"type": "message", "role": "assistant", "id": "msg_1", "status": "completed",
         "content": [{"type": "output_text", "text": "It rains.", "annotations": []}]},
        {"role": "user", "content": "And tomorrow?"},
    ]  # fmt: skip
    made = ask(client, items, instructions="You know the weather.")
    assert made.output_text
    listed = list(client.responses.input_items.list(made.id, order="asc", limit=3))
    assert [item.type for item in listed] == [
        "message", "message", "reasoning", "function_call", "function_call_output", "message",
        "message",
    ]  # fmt: skip
    assert [part.text for part in listed[1].content] == ["What is the ", "weather in Hull?"]
    again = ask(client, [{"type": "item_reference", "id": listed[1].id}])
    (copy,) = client.responses.input_items.list(again.id)
    assert copy.content == listed[1].content and copy.id != listed[1].id


# ---- chains


def test_a_chain_reads_what_was_said_and_computes_only_what_is_new(smollm_client: openai.OpenAI):
    before, with_answer = None, []
    for text in ("My name is Wilhelmina.", "What is my name?", "Spell it.", "Say it twice."):
        made = ask(
            smollm_client, text, model=SMOLLM, instructions=INSTRUCTIONS, max_output_tokens=24,
            previous_response_id=before.id if before else None,
        )  # fmt: skip
        if before is not None:
            assert made.previous_response_id == before.id
            read = before.usage.input_tokens + before.usage.output_tokens
            assert made.usage.input_tokens > read
            n_cached = made.usage.input_tokens_details.cached_tokens
            assert n_cached >= before.usage.input_tokens - 1
            # The last token of an answer that was cut has not been computed.
            with_answer.append(n_cached >= read - 1)
        before = made
    # An answer may be other tokens when its text is read, which are computed anew; hardly every one is.
    assert any(with_answer)
    assert len(list(smollm_client.responses.input_items.list(before.id))) == 1, "its own request's"


def test_a_chain_may_branch_and_a_part_of_it_may_not_be_missing(client: openai.OpenAI):
    first = ask(client, "Name a colour.")
    left = ask(client, "Another.", previous_response_id=first.id)
    right = ask(client, "A shape.", previous_response_id=first.id)
    assert {left.previous_response_id, right.previous_response_id} == {first.id}
    client.responses.delete(first.id)
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(first.id)
    assert client.responses.retrieve(left.id).id == left.id
    with pytest.raises(openai.BadRequestError) as caught:
        ask(client, "More.", previous_response_id=right.id)
    assert caught.value.code == "previous_response_not_found"
    assert "no longer whole" in caught.value.message


def test_a_call_whose_tokens_run_out_is_closed(client: openai.OpenAI):
    tool = {
        "type": "function", "name": "note", "strict": True,
        "parameters": {"type": "object", "properties": {"text": {"type": "string", "minLength": 200}},
                       "required": ["text"], "additionalProperties": False},
    }  # fmt: skip
    cut = ask(client, "Write a note.", tools=[tool], tool_choice="required", max_output_tokens=16)
    assert (cut.status, cut.output[-1].type) == ("incomplete", "function_call")
    assert len(json.loads(cut.output[-1].arguments)["text"]) >= 200


def test_an_answer_that_was_not_stored_cannot_be_continued(client: openai.OpenAI):
    made = ask(client, "Hello", store=False)
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(made.id)
    with pytest.raises(openai.BadRequestError) as caught:
        ask(client, "Go on", previous_response_id=made.id)
    assert (caught.value.code, caught.value.param) == (
        "previous_response_not_found",
        "previous_response_id",
    )


def test_tokens_are_counted_as_they_would_be_read(client: openai.OpenAI):
    given = {"instructions": INSTRUCTIONS, "input": "What is my name?", "model": TALES_CHAT}
    before = client.responses.create(**given, max_output_tokens=4)
    for more in ({}, {"previous_response_id": before.id}, {"tools": [FUNCTION]}):
        counted = client.responses.input_tokens.count(**given, **more)
        made = client.responses.create(**given, **more, max_output_tokens=1)
        assert counted.input_tokens == made.usage.input_tokens
        assert (counted.object, counted.input_tokens > 20) == ("response.input_tokens", True)


# ---- in the background


def test_a_response_in_the_background_is_polled_until_it_has_ended(client: openai.OpenAI):
    made = ask(client, "Is a ferry a boat?", background=True)
    assert made.status == "queued" and made.background and made.output == []
    done = ended(client, made.id)
    assert done.status in ("completed", "incomplete") and done.output_text
    assert done.usage.output_tokens > 0
    follow = ask(client, "Why?", previous_response_id=done.id)
    assert follow.usage.input_tokens_details.cached_tokens > 0
    assert client.responses.cancel(done.id).status == done.status, "it has ended"
    with pytest.raises(openai.BadRequestError, match="not made in the background"):
        client.responses.cancel(follow.id)


def test_a_response_in_the_background_is_cancelled_with_what_there_is(client: openai.OpenAI):
    made = ask(client, "Tell me a story.", background=True, **LONG)
    wait_for(lambda: client.responses.retrieve(made.id).status == "in_progress")
    with pytest.raises(openai.BadRequestError, match="has not ended"):
        ask(client, "Go on", previous_response_id=made.id)
    gone = client.responses.cancel(made.id)
    assert gone.status == "cancelled" and gone.output[0].status == "incomplete"
    assert client.responses.cancel(made.id) == gone
    assert client.responses.retrieve(made.id) == gone
    other = ask(client, "Tell me a story.", background=True, **LONG)
    client.responses.delete(other.id)
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(other.id)


def test_the_events_of_the_background_are_read_from_anywhere(client: openai.OpenAI):
    stream = ask(client, "Tell me a story.", background=True, stream=True, **LONG)
    seen = [next(stream) for _ in range(6)]
    stream.close()
    assert [event.type for event in seen[:3]] == [
        "response.created", "response.queued", "response.in_progress",
    ]  # fmt: skip
    name = seen[0].response.id
    with client.responses.retrieve(name, stream=True, starting_after=3) as events:
        following = [next(events), next(events)]
        assert [event.sequence_number for event in following] == [4, 5]
        assert following[1] == seen[5], "who left has missed nothing"
        client.responses.cancel(name)
        rest = list(events)
    assert rest[-1].type == "response.incomplete" and rest[-1].response.status == "cancelled"
    sync = ask(client, "Hello")
    with pytest.raises(openai.BadRequestError) as caught:
        client.responses.retrieve(sync.id, stream=True)
    assert caught.value.param == "stream"


def test_a_background_response_that_fails_says_why(client: openai.OpenAI):
    made = ask(client, "word " * 6000, background=True)
    done = ended(client, made.id)
    assert done.status == "failed" and done.error.code == "invalid_prompt"
    assert done.error.type == "context_length_exceeded" and "tokens" in done.error.message


# ---- what is refused

FUNCTION = {"type": "function", "name": "f", "parameters": {"type": "object", "properties": {}}}


@pytest.mark.parametrize(
    ("body", "param", "code"),
    [
        ({"input": []}, "input", "invalid_parameter"),
        ({}, "input", "invalid_parameter"),
        ({"input": 5}, "input", "invalid_parameter"),
        ({"input": [5]}, "input.0", "invalid_parameter"),
        ({"input": [{"type": "computer_call"}]}, "input", "invalid_parameter"),
        ({"input": [{"type": "surprise"}]}, "input", "unsupported_parameter"),
        ({"input": [{"role": "tool", "content": "x"}]}, "input.0.message.role", "invalid_parameter"),
        ({"input": [{"role": "user", "content": [{"type": "input_image", "image_url": "x"}]}]},
         "input", "unsupported_parameter"),
        ({"input": [{"type": "function_call_output", "call_id": "c", "output": "x"}]},
         "input", "invalid_parameter"),
        ({"input": [{"type": "function_call", "call_id": "c", "name": "f", "arguments": "{"}]},
         "input.0.function_call.arguments", "invalid_parameter"),
        ({"input": "x", "tools": [{"type": "fonction"}]}, "tools", "unsupported_parameter"),
        ({"input": "x", "tools": [{"type": "function"}]}, "tools.0.name", "invalid_parameter"),
        ({"input": "x", "tools": [{"type": "mcp"}], "tool_choice": "required"}, "tool_choice",
         "invalid_parameter"),
        ({"input": "x", "tool_choice": "required"}, "tool_choice", "invalid_parameter"),
        ({"input": "x", "tools": [FUNCTION], "tool_choice": {"type": "function", "name": "g"}},
         "tool_choice", "invalid_parameter"),
        ({"input": "x", "tool_choice": {"type": "mcp"}}, "tool_choice", "unsupported_parameter"),
        ({"input": "x", "previous_response_id": "resp_1", "conversation": "conv_1"},
         "previous_response_id", "invalid_parameter"),
        ({"input": "x", "previous_response_id": "resp_1"},
         "previous_response_id", "previous_response_not_found"),
        ({"input": "x", "previous_response_id": "chatcmpl-1"},
         "previous_response_id", "previous_response_not_found"),
        ({"input": "x", "background": True, "store": False}, "background", "invalid_parameter"),
        ({"input": "x", "top_logprobs": 21}, "top_logprobs", "invalid_parameter"),
        ({"input": "x", "include": ["everything"]}, "include.0", "invalid_parameter"),
        ({"input": "x", "text": {"format": {"type": "json_schema"}}}, "text.format",
         "invalid_parameter"),
        ({"input": "x", "text": {"format": {"type": "json_schema", "name": "t", "strict": True,
          "schema": {"type": "object", "unevaluatedItems": False}}}}, "text.format", "unsupported_parameter"),
        ({"input": "x", "prompt": {"id": "p"}}, "prompt", "unsupported_parameter"),
        ({"input": "x", "max_tokens": 5}, "max_tokens", "invalid_parameter"),
        ({"input": "x", "max_output_tokens": 100_000}, "max_output_tokens",
         "context_length_exceeded"),
        ({"input": "x", "metadata": {"k": "v" * 513}}, "metadata.k", "invalid_parameter"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("stream", [False, True])
def test_bad_requests_are_refused_by_name(
    daemon: DaemonProcess, body: dict, param: str, code: str, stream: bool
):
    answer = httpx.post(f"{daemon.url}/v1/responses", json=body | {"stream": stream}, timeout=60)
    error = error_of(answer.json())
    assert (answer.status_code, error["param"], error["code"]) == (400, param, code), error


@pytest.mark.parametrize(
    ("body", "status", "param"),
    [
        ({"conversation": "conv_1", "input": "x"}, 404, None),
        ({"input": [{"type": "item_reference", "id": "msg_1"}]}, 404, "input"),
        ({"input": "x", "model": "nothing-like-it"}, 404, "model"),
        ({"input": "word " * 6000, "stream": True}, 400, "input"),
    ],
)
def test_what_is_not_there_or_too_long_is_said_before_a_stream_begins(
    daemon: DaemonProcess, body: dict, status: int, param: str | None
):
    answer = httpx.post(f"{daemon.url}/v1/responses", json=body, timeout=60)
    assert (answer.status_code, error_of(answer.json())["param"]) == (status, param)
    if status == 400:
        assert answer.json()["error"]["code"] == "context_length_exceeded"


def test_a_long_history_is_refused_before_the_stream_begins(client: openai.OpenAI):
    long = [{"role": "user", "content": "word " * 2500}] * 2
    made = client.conversations.create(items=long)
    with pytest.raises(openai.BadRequestError) as caught:
        ask(client, "Hello", conversation=made.id, stream=True)
    assert caught.value.code == "context_length_exceeded"
    with pytest.raises(openai.BadRequestError):
        ask(client, "Hello", conversation=made.id)  # and it is not locked


def test_a_daemon_that_stores_nothing_answers_and_says_so(tales_dir: Path, tmp_path: Path):
    with serving(tales_dir, tmp_path / "state", store="off") as daemon, daemon.client() as client:
        made = ask(client, "Hello")
        assert made.output_text and made.store is False
        for options in ({"store": True}, {"previous_response_id": made.id}):
            with pytest.raises(openai.ConflictError) as caught:
                ask(client, "Hello", **options)
            assert caught.value.code == "store_off"
        for call in (
            lambda: client.responses.retrieve(made.id),
            lambda: client.conversations.create(),
        ):
            with pytest.raises(openai.ConflictError):
                call()
        with pytest.raises(openai.BadRequestError, match="turn the store"):
            ask(client, "Hello", background=True)


def test_a_dialogue_that_does_not_fit_loses_its_oldest_turns_where_it_may(client):
    long = [
        {"role": "user", "content": "apple " * 4100}, {"role": "assistant", "content": "ok"},
        {"role": "user", "content": "river " * 4100}, {"role": "assistant", "content": "ok"},
        {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "c", "output": "stone"},
        {"role": "user", "content": "hi"},
    ]  # fmt: skip
    asked = {"model": TALES_CHAT, "max_output_tokens": 2, "instructions": "Be kind."}
    with pytest.raises(openai.BadRequestError, match="maximum context length"):
        client.responses.create(**asked, input=long)
    made = client.responses.create(**asked, input=long, truncation="auto")
    short = client.responses.create(**asked, input=long[-1:])
    assert made.usage.input_tokens == short.usage.input_tokens, "both turns had to go"
    assert "5 oldest messages" in made.edgeagent["notes"][0]
    # The history is kept whole, and what it is too long for is left out again.
    again = client.responses.create(
        **asked, input="And now?", previous_response_id=made.id, truncation="auto"
    )
    assert again.edgeagent["notes"] and again.usage.input_tokens < 200
    with pytest.raises(openai.BadRequestError, match="maximum context length"):
        client.responses.create(**asked, input="And now?", previous_response_id=made.id)
    with pytest.raises(openai.BadRequestError, match="maximum context length"):
        client.responses.create(**asked, input="word " * 5000, truncation="auto")
