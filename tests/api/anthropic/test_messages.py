"""Anthropic's Messages API as its official client sees it, with strict validation of every object."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Literal

import httpx
import jsonschema
import pytest
from pydantic import BaseModel

from edgeagent.api.anthropic.content import BETWEEN, TextBlock, turns
from edgeagent.api.anthropic.messages import MessageWriter
from edgeagent.api.anthropic.schemas import MessagesRequest
from edgeagent.errors import EngineFailed, InvalidParameter, UnsupportedParameter
from edgeagent.routing.decision import Decision
from edgeagent.serving.answer import Answer
from edgeagent.types.answer import CallDelta, PromptFacts, TokenChunk, Usage
from edgeagent.types.generation import GenerateSpec
from tests.api.wire import anthropic_error_of as error_of
from tests.api.wire import connect, exchange, post, read_reply, request
from tests.conftest import SHALLOW, SMOLLM, TALES_CHAT, DaemonProcess
from tests.lazy import lazily

if TYPE_CHECKING:
    import anthropic
else:
    anthropic = lazily("anthropic")

ASK = [{"role": "user", "content": "Name three colours."}]
# The SDK of today has no argument for a temperature; those of before have.
COLD = {"extra_body": {"temperature": 0}}
ASKED: dict[str, Any] = {"model": TALES_CHAT, "messages": ASK, "max_tokens": 12} | COLD


@pytest.fixture(scope="module")
def claude(tales_daemon: DaemonProcess) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(
        base_url=tales_daemon.url, api_key="none", max_retries=0, timeout=60,
        _strict_response_validation=True,
    ) as client:  # fmt: skip
        yield client


@pytest.fixture(scope="module")
def smollm_claude(smollm_daemon: DaemonProcess) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(
        base_url=smollm_daemon.url, api_key="none", max_retries=0, timeout=60,
        _strict_response_validation=True,
    ) as client:  # fmt: skip
        yield client


@pytest.fixture(scope="module")
def shallow_claude(shallow_daemon: DaemonProcess) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(
        base_url=shallow_daemon.url, api_key="none", max_retries=0, timeout=60,
        _strict_response_validation=True,
    ) as client:  # fmt: skip
        yield client


def create(client: anthropic.Anthropic, **kwargs: Any) -> Any:
    return client.messages.create(**(ASKED | kwargs))


def n_input(usage: anthropic.types.Usage) -> int:
    """All tokens of a prompt, cached or not."""
    return usage.input_tokens + (usage.cache_read_input_tokens or 0)


def test_an_answer_has_blocks_a_stop_reason_and_usage(claude):
    answer = create(claude)
    assert answer.id.startswith("msg_") and answer.model == TALES_CHAT
    (block,) = answer.content
    assert block.type == "text" and block.text
    assert (answer.stop_reason, answer.stop_sequence) == ("max_tokens", None)
    assert answer.usage.output_tokens == 12 and n_input(answer.usage) > 5
    assert answer._request_id.startswith("req_")


def test_an_answer_that_ends_by_itself_is_an_end_of_turn(claude):
    form = {"format": {"type": "json_schema", "schema": {"const": "hi"}}}  # has an end for sure
    answer = create(claude, output_config=form, max_tokens=200)
    assert (answer.stop_reason, answer.content[0].text) == ("end_turn", '"hi"')


@pytest.mark.parametrize("is_stream", [False, True])
def test_a_stop_sequence_is_named_and_not_in_the_text(claude, is_stream):
    ask = {"messages": [{"role": "user", "content": "Write a sentence about rivers."}]}
    ask |= {"stop_sequences": ["\x07", " ", "zzz"], "max_tokens": 30}
    if is_stream:
        with claude.messages.stream(**(ASKED | ask)) as stream:
            answer = stream.get_final_message()
    else:
        answer = create(claude, **ask)
    assert (answer.stop_reason, answer.stop_sequence) == ("stop_sequence", " ")
    assert answer.content[0].text and " " not in answer.content[0].text


def test_a_stream_gives_the_message_that_a_whole_answer_is(claude):
    with claude.messages.stream(**ASKED) as stream:
        text = "".join(stream.text_stream)
        streamed = stream.get_final_message()
    whole = create(claude)
    assert streamed.content[0].text == text and text
    assert streamed.stop_reason == whole.stop_reason == "max_tokens"
    assert streamed.usage.output_tokens == whole.usage.output_tokens
    assert n_input(streamed.usage) == n_input(whole.usage)


def test_events_come_in_order_and_each_says_its_type_twice(tales_daemon: DaemonProcess):
    body = {"model": TALES_CHAT, "messages": ASK, "max_tokens": 3, "stream": True}
    reply = httpx.post(f"{tales_daemon.url}/v1/messages", json=body, timeout=60)
    assert reply.headers["content-type"].startswith("text/event-stream")
    assert reply.headers["request-id"] == reply.headers["x-request-id"]
    events = read_events(reply.content)
    kinds = [event["type"] for event in events]
    assert kinds[:2] == ["message_start", "content_block_start"]
    assert set(kinds[2:-3]) == {"content_block_delta"}
    assert kinds[-3:] == ["content_block_stop", "message_delta", "message_stop"]
    assert events[0]["message"]["content"] == [] and events[0]["message"]["stop_reason"] is None


def read_events(raw: bytes) -> list[dict[str, Any]]:
    """The events of a stream; fails the test where its two names of one event differ."""
    found = []
    for event in raw.decode().split("\n\n")[:-1]:
        head, data = event.split("\n")
        found.append(json.loads(data.removeprefix("data: ")))
        assert head == f"event: {found[-1]['type']}"
    return found


def test_blocks_and_plain_text_are_the_same_prompt(claude):
    plain = create(
        claude, max_tokens=1, system="You are a pirate.\n\nYou are terse.",
        messages=[{"role": "user", "content": "Hello there.\n\nWho are you?"}],
    ).usage  # fmt: skip
    cached = {"type": "ephemeral"}
    system = [
        {"type": "text", "text": "You are a pirate.", "cache_control": cached},
        {"type": "text", "text": "You are terse."},
    ]
    parts = [
        {"role": "user", "content": [{"type": "text", "text": "Hello there."}]},
        {"role": "user", "content": [{"type": "text", "text": "Who are you?"}]},
    ]
    again = create(claude, max_tokens=1, system=system, messages=parts).usage
    assert n_input(again) == n_input(plain)
    assert again.cache_read_input_tokens == n_input(plain) - 1, "the very same tokens"


def test_the_beginning_of_an_answer_is_continued(smollm_claude):
    begun = {"role": "assistant", "content": "One, two, three, four,"}
    ask = [{"role": "user", "content": "Count from one to ten in words."}]
    answer = create(smollm_claude, model=SMOLLM, messages=[*ask, begun], max_tokens=4)
    assert "five" in answer.content[0].text
    with pytest.raises(anthropic.BadRequestError, match="only the beginning"):
        create(smollm_claude, model=SMOLLM, messages=[begun])


def test_tokens_are_counted_as_an_answer_counts_them(claude):
    system = "You are a pirate."
    counted = claude.messages.count_tokens(model=TALES_CHAT, messages=ASK, system=system)
    assert counted.input_tokens == n_input(create(claude, system=system, max_tokens=1).usage)
    longer = [*ASK, {"role": "assistant", "content": "Red."}, {"role": "user", "content": "More."}]
    more = claude.messages.count_tokens(model=TALES_CHAT, messages=longer, system=system)
    assert more.input_tokens > counted.input_tokens


class Colour(BaseModel):
    name: str
    is_warm: bool


def test_an_output_format_binds(claude):
    answer = claude.messages.parse(
        model=TALES_CHAT, messages=ASK, max_tokens=60, output_format=Colour, **COLD
    )
    assert isinstance(answer.parsed_output, Colour)


async def test_the_asynchronous_client_streams_too(tales_daemon: DaemonProcess):
    async with anthropic.AsyncAnthropic(base_url=tales_daemon.url, api_key="x") as client:
        stream = await client.messages.create(
            model=TALES_CHAT, messages=ASK, max_tokens=5, stream=True, metadata={"user_id": "u"}
        )
        kinds = [event.type async for event in stream]
    assert kinds[0] == "message_start" and kinds[-1] == "message_stop"


def test_fields_that_change_nothing_are_accepted(claude):
    first = create(claude, max_tokens=1).usage
    again = create(
        claude, max_tokens=1, service_tier="auto", metadata={"user_id": "u"}, thinking={"type": "disabled"},
        extra_headers={"anthropic-version": "2023-06-01", "anthropic-beta": "some-beta-2026-01-01"},
    ).usage  # fmt: skip
    assert n_input(again) == n_input(first)


# --- errors


def test_every_error_has_anthropics_shape_and_its_exception(claude, tales_daemon: DaemonProcess):
    with pytest.raises(anthropic.NotFoundError, match="claude") as caught:
        create(claude, model="claude-sonnet")
    assert caught.value.type == "not_found_error" and caught.value.request_id.startswith("req_")
    error_of(caught.value.response.json())
    assert caught.value.response.json()["request_id"] == caught.value.request_id
    assert caught.value.response.headers["x-should-retry"] == "false"
    url = tales_daemon.url
    json_type = "Content-Type: application/json"
    for raw, status, kind in (
        (post("/v1/messages", b"{"), 400, "invalid_request_error"),
        (post("/v1/messages", {"model": TALES_CHAT, "messages": ASK}), 400, "invalid_request_error"),
        (request("GET", "/v1/messages"), 405, "invalid_request_error"),
        (post("/v1/messages/batches", {}), 404, "not_found_error"),
        (request("POST", "/v1/messages", "Content-Type: text/plain", body=b"{}"), 415,
         "invalid_request_error"),
        (request("POST", "/v1/messages", json_type, host="evil.example"), 403, "permission_error"),
    ):  # fmt: skip
        reply = exchange(url, raw)
        assert reply.status == status, (raw, reply)
        assert error_of(json.loads(reply.body))["type"] == kind
        assert json.loads(reply.body)["request_id"] == reply.headers["request-id"]


def test_a_body_that_is_too_large_is_a_413_in_the_same_shape(tales_daemon: DaemonProcess):
    size = (32 << 20) + 1
    with connect(tales_daemon.url) as sock:
        head = request("POST", "/v1/messages", "Content-Type: application/json")
        sock.sendall(head.replace(b"Content-Length: 0", b"Content-Length: %d" % size))
        sock.sendall(b" " * size)
        reply = read_reply(sock)
    assert reply.status == 413
    assert error_of(json.loads(reply.body))["type"] == "request_too_large"


def test_a_prompt_that_is_too_long_is_a_400_before_the_stream(claude):
    said = "prompt is too long.*maximum context length is 4096 tokens"
    with pytest.raises(anthropic.BadRequestError, match=said):
        create(claude, messages=[{"role": "user", "content": "word " * 5000}], stream=True)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"max_tokens": 0}, "max_tokens"), ({"temperature": "hot"}, "temperature"),
        ({"messages": []}, "messages"), ({"top_k": -1}, "top_k"), ({"system": 5}, "system"),
        ({"stop_sequences": "x"}, "stop_sequences"), ({"stop_sequences": [""]}, "stop_sequences"),
        ({"messages": [{"role": "nobody", "content": "Hi"}]}, "messages"),
        ({"messages": [{"role": "user", "content": [{"text": "Hi"}]}]}, "messages"),
        ({"messages": [{"role": "user", "content": [{"type": "text"}]}]}, "messages"),
        ({"metadata": {"user": "u"}}, "metadata"), ({"max_token": 5}, "max_tokens"),
        ({"thinking": {"type": "perhaps"}}, "thinking"), ({"mcp_servers": 5}, "mcp_servers"),
        ({"tools": [{"type": "oracle_20250101", "name": "oracle"}]}, "oracle_20250101"),
        ({"tools": [{"type": "bash_20250124", "name": "two words"}]}, "tools"),
        ({"output_config": {"format": {"type": "json_schema", "schema": {"type": "x"}}}}, "type"),
    ],
    ids=str,
)  # fmt: skip
def test_what_is_wrong_with_a_request_is_named(tales_daemon: DaemonProcess, change, named):
    body = {"model": TALES_CHAT, "messages": ASK, "max_tokens": 5} | change
    reply = exchange(tales_daemon.url, post("/v1/messages", body))
    assert reply.status == 400, reply
    assert named in error_of(json.loads(reply.body))["message"]


# --- what becomes of a request


def prompt(messages: list[dict[str, Any]], **fields: Any) -> list[dict[str, Any]]:
    body = {"model": "m", "max_tokens": 1, "messages": messages} | fields
    return MessagesRequest.model_validate(body).prompt().messages or []


CALL = {"type": "tool_use", "id": "toolu_1", "name": "weather", "input": {"city": "Rome"}}


def test_calls_and_their_results_become_what_templates_read():
    thought = {"type": "thinking", "thinking": "A tool knows.", "signature": "sig"}
    said = {"type": "text", "text": "Let me look."}
    result = {
        "type": "tool_result", "tool_use_id": "toolu_1", "content": [{"type": "text", "text": "Sun"}],
    }  # fmt: skip
    assert prompt([
        {"role": "user", "content": "Weather in Rome?"},
        {"role": "assistant", "content": [thought, said, CALL]},
        {"role": "user", "content": [result, {"type": "text", "text": "And?"}]},
    ], system="Be brief.") == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Weather in Rome?"},
        {"role": "assistant", "content": "Let me look.", "reasoning_content": "A tool knows.",
         "tool_calls": [{"id": "toolu_1", "type": "function",
                         "function": {"name": "weather", "arguments": '{"city": "Rome"}'}}]},
        {"role": "tool", "tool_call_id": "toolu_1", "name": "weather", "content": "Sun"},
        {"role": "user", "content": "And?"},
    ]  # fmt: skip


def test_an_error_of_a_tool_is_told_as_one():
    result = {"type": "tool_result", "tool_use_id": "toolu_1", "is_error": True, "content": "Boom"}
    found = prompt(
        [{"role": "assistant", "content": [CALL]}, {"role": "user", "content": [result]}]
    )
    assert found[-1]["content"] == "Error: Boom"


@pytest.mark.parametrize(
    ("messages", "error"),
    [
        ([{"role": "user", "content": [{"type": "tool_result", "tool_use_id": "x"}]}], "no `tool_use`"),
        ([{"role": "user", "content": [CALL]}], "other role"),
        ([{"role": "assistant", "content": [{"type": "tool_result", "tool_use_id": "x"}]}],
         "other role"),
    ],
)  # fmt: skip
def test_a_block_that_does_not_fit_its_place_is_refused(messages, error):
    with pytest.raises(InvalidParameter, match=error):
        prompt(messages)


@pytest.mark.parametrize("kind", ["image", "document", "search_result", "nonsense"])
def test_a_block_that_nobody_here_can_read_says_what_is_missing(kind):
    with pytest.raises(UnsupportedParameter, match=kind):
        prompt([{"role": "user", "content": [{"type": kind, "source": {}}]}])


SEARCHED = [
    {"type": "server_tool_use", "id": "srvtoolu_1", "name": "web_search", "input": {"query": "x"}},
    {"type": "web_search_tool_result", "tool_use_id": "srvtoolu_1", "content": [
        {"type": "web_search_result", "url": "https://example.org", "title": "X",
         "encrypted_content": "abc", "page_age": None},
    ]},
]  # fmt: skip


@pytest.mark.parametrize(
    "blocks",
    [
        SEARCHED,
        [SEARCHED[0], SEARCHED[1] | {"content": {"type": "web_search_tool_result_error"}}],
        [{"type": "mcp_tool_use", "id": "m", "name": "f", "server_name": "s", "input": {}},
         {"type": "mcp_tool_result", "tool_use_id": "m", "is_error": False, "content": []}],
        [{"type": "web_fetch_tool_result", "tool_use_id": "w", "content": {}, "caller": {"type": "direct"}}],
        [{"type": "bash_code_execution_tool_result", "tool_use_id": "b", "content": {"stdout": "1"}}],
        [{"type": "oracle_tool_result", "tool_use_id": "of a later release"}],
    ],
)  # fmt: skip
def test_what_ran_on_servers_is_left_out_of_a_history_and_said(blocks):
    told = [{"type": "text", "text": "It is X.", "citations": []}]
    messages = [
        {"role": "user", "content": "What is it?"},
        {"role": "assistant", "content": [*blocks, *told]},
        {"role": "assistant", "content": blocks},
        {"role": "user", "content": [{"type": "container_upload", "file_id": "f"}, *told]},
    ]
    body = MessagesRequest.model_validate({"model": "m", "max_tokens": 1, "messages": messages})
    assert body.prompt().messages == [
        {"role": "user", "content": "What is it?"},
        {"role": "assistant", "content": "It is X."},
        {"role": "user", "content": "It is X."},
    ]
    (note,) = body.notes()
    assert "do not run on this device" in note and "`container_upload`" in note


def test_a_turn_that_a_server_has_paused_is_taken_up_as_a_question():
    found = prompt(
        [{"role": "user", "content": "Look."}, {"role": "assistant", "content": SEARCHED}]
    )
    assert found == [{"role": "user", "content": "Look."}]


def test_a_summary_stands_for_what_it_sums_up():
    block = {"type": "compaction", "content": "They spoke of boats."}
    found = prompt([{"role": "assistant", "content": [block]}, {"role": "user", "content": "And?"}])
    assert found[0] == {"role": "assistant", "content": "They spoke of boats."}


@pytest.mark.parametrize(
    "container", ["cont_1", {"id": "cont_1", "skills": [{"type": "anthropic"}]}]
)
def test_a_container_is_left_out_and_said(container):
    fields = {"model": "m", "max_tokens": 1, "messages": ASK, "container": container}
    (note,) = MessagesRequest.model_validate(fields).notes()
    assert note.startswith("container: ")


# --- what becomes of an answer

DONE = Usage(n_prompt=9, n_cached=4, n_generated=7, queue_ms=0, ttft_ms=1, total_ms=2)
CHUNKS = [
    TokenChunk(0, "", reasoning="Hm"),
    TokenChunk(0, "Let me ", reasoning="m."),
    TokenChunk(0, "see."),
    TokenChunk(0, "", calls=[CallDelta(0, name="weather"), CallDelta(0, '{"city":')]),
    TokenChunk(0, "", calls=[CallDelta(0, '"Rome"}'), CallDelta(1, "{}", "time")]),
    TokenChunk(0, "", "tool_calls", DONE),
]


def answered(finish: str) -> Answer:
    """An answer of one text that has ended, without an engine."""
    decision = Decision("m", "named")
    answer = Answer(None, decision, GenerateSpec(prompts=[]), None)  # type: ignore[arg-type]
    answer.spec = GenerateSpec(prompts=[None])  # type: ignore[list-item]
    answer.finishes[0], answer.usages[0] = finish, DONE  # type: ignore[assignment]
    return answer


@pytest.mark.parametrize("shows_thinking", [True, False])
def test_thinking_text_and_calls_become_blocks_streamed_and_whole(shows_thinking):
    stream = MessageWriter("m", shows_thinking=shows_thinking)
    raw = stream.opening(PromptFacts(9, 4)) + b"".join(stream.events([chunk]) for chunk in CHUNKS)
    raw += stream.last_events(answered("tool_calls"))
    message: Any = None
    buffers: dict[int, bytes] = {}
    for event in read_events(raw):
        message = anthropic.lib.streaming._messages.accumulate_event(
            event=event,  # type: ignore[arg-type]
            current_snapshot=message,
            json_bufs=buffers,
        )
    whole = MessageWriter("m", shows_thinking=shows_thinking)
    for chunk in CHUNKS:
        whole.collect([chunk])
    expected = anthropic.types.Message.model_validate_json(whole.whole(answered("tool_calls")))
    kinds = [block.type for block in expected.content]
    assert kinds == ["thinking"] * shows_thinking + ["text", "tool_use", "tool_use"]
    assert expected.stop_reason == message.stop_reason == "tool_use"
    assert expected.content[-1].input == {} and expected.content[-2].input == {"city": "Rome"}
    ids = [block.id for block in expected.content[-2:]]
    assert len(set(ids)) == 2 and all(name.startswith("toolu_") for name in ids)
    assert [plain(block) for block in message.content] == [plain(b) for b in expected.content]
    assert message.usage.output_tokens == 7 and message.usage.input_tokens == 5
    assert message.usage.cache_read_input_tokens == 4


def plain(block: Any) -> dict[str, Any]:
    return {name: value for name, value in block.model_dump().items() if name != "id" and value}


def test_an_error_in_mid_stream_is_an_event_that_the_sdk_raises():
    (event,) = read_events(
        MessageWriter("m", shows_thinking=False).error_events(EngineFailed("Oh."))
    )
    assert event["error"] == {"type": "api_error", "message": "Oh."}


def test_a_stream_that_waits_begins_before_its_first_ping():
    writer = MessageWriter("m", shows_thinking=False)
    events = read_events(writer.opening(None) + (writer.ping or b""))
    assert [event["type"] for event in events] == ["message_start", "ping"]


def test_messages_without_any_content_are_refused(tales_daemon: DaemonProcess):
    body = {"model": "default", "max_tokens": 4, "messages": [{"role": "user", "content": []}] * 2}
    reply = exchange(tales_daemon.url, post("/v1/messages", body))
    assert reply.status == 400
    assert "messages" in error_of(json.loads(reply.body))["message"]


@pytest.mark.parametrize("is_streamed", [False, True])
def test_a_tool_is_called_and_its_result_answered(shallow_claude, is_streamed):
    lamp = {
        "name": "lamp",
        "description": "Switch a lamp",
        "input_schema": {
            "type": "object",
            "properties": {"room": {"enum": ["hall", "attic"]}, "on": {"type": "boolean"}},
            "required": ["room", "on"],
            "additionalProperties": False,
        },
    }
    asked = [{"role": "user", "content": "Switch the lamp in the hall on."}]
    options = {"tools": [lamp], "max_tokens": 60, "messages": asked} | COLD
    options["tool_choice"] = {"type": "any", "disable_parallel_tool_use": True}
    if is_streamed:
        with shallow_claude.messages.stream(model=SHALLOW, **options) as stream:
            answer = stream.get_final_message()
    else:
        answer = create(shallow_claude, model=SHALLOW, **options)
    assert answer.stop_reason == "tool_use"
    (call,) = answer.content
    jsonschema.validate(call.input, lamp["input_schema"])
    result = {"type": "tool_result", "tool_use_id": call.id, "content": "The lamp is on."}
    turns = [*asked, {"role": "assistant", "content": answer.content}]
    turns.append({"role": "user", "content": [result]})
    said = create(
        shallow_claude,
        model=SHALLOW,
        **(options | {"messages": turns, "tool_choice": {"type": "none"}, "max_tokens": 8}),
    )
    (block,) = said.content
    assert block.type == "text" and block.text


def test_the_sdks_own_runner_calls_a_python_function(shallow_claude):
    asked_for = []

    @anthropic.beta_tool
    def lamp(room: Literal["hall", "attic"]) -> str:
        """Switch a lamp on.

        Args:
            room: where it is
        """
        asked_for.append(room)
        return f"The lamp in the {room} is on."

    runner = shallow_claude.beta.messages.tool_runner(
        model=SHALLOW, max_tokens=60, tools=[lamp], tool_choice={"type": "tool", "name": "lamp"},
        messages=[{"role": "user", "content": "Light in the hall, please."}], max_iterations=1, thread=False,
        **COLD,
    )  # fmt: skip
    first = next(iter(runner))
    assert first.stop_reason == "tool_use" and first.content[0].name == "lamp"
    (answered,) = runner.generate_tool_call_response()["content"]
    assert answered["content"] == f"The lamp in the {asked_for[0]} is on."


def test_neighbours_of_one_role_are_joined():
    blocks = [TextBlock(type="text", text="word"), TextBlock(type="text", text="")]
    out = turns(
        [], [("user", blocks), ("user", blocks), ("assistant", blocks[:1]), ("user", blocks)]
    )
    assert [turn["content"] for turn in out] == [f"word{BETWEEN}word", "word", "word"]
