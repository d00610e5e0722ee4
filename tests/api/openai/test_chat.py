"""Chat as the official client sees it, with strict validation of every object."""

from __future__ import annotations

import httpx
import openai
import pytest

from tests.conftest import SHALLOW, SMOLLM, TALES_CHAT, DaemonProcess


@pytest.fixture(scope="module")
def client(tales_client: openai.OpenAI) -> openai.OpenAI:
    return tales_client


ASK = [{"role": "user", "content": "Name three colours."}]


def create(client: openai.OpenAI, **kwargs):
    options = {"model": TALES_CHAT, "messages": ASK, "max_tokens": 12, "temperature": 0}
    return client.chat.completions.create(**(options | kwargs))


def said_by_smollm(client: openai.OpenAI, **kwargs):
    """The same of the model whose answers have an end and a meaning."""
    return create(client, model=SMOLLM, **kwargs)


def said_by_shallow(client: openai.OpenAI, **kwargs):
    """The same of the model with a real vocabulary and chat template."""
    return create(client, model=SHALLOW, **kwargs)


def is_same_prompt(
    usage: openai.types.CompletionUsage, first: openai.types.CompletionUsage
) -> bool:
    """Whether a later prompt is the same tokens as an earlier one: all but its last come from the cache."""
    n_cached = usage.prompt_tokens_details.cached_tokens
    return usage.prompt_tokens == first.prompt_tokens and n_cached == first.prompt_tokens - 1


def texts(stream) -> dict[int, str]:
    """The text of each choice of a stream."""
    found: dict[int, str] = {}
    for chunk in stream:
        for choice in chunk.choices:
            found[choice.index] = found.get(choice.index, "") + (choice.delta.content or "")
    return found


def test_an_answer_has_id_model_one_choice_and_usage(client):
    answer = create(client)
    assert answer.id.startswith("chatcmpl-")
    assert answer.object == "chat.completion"
    assert answer.model == TALES_CHAT
    assert answer.created > 0
    (choice,) = answer.choices
    assert choice.index == 0
    assert choice.message.role == "assistant"
    assert choice.message.content
    assert choice.finish_reason == "length"
    assert answer.usage.completion_tokens == 12
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + 12
    assert 0 <= answer.usage.prompt_tokens_details.cached_tokens < answer.usage.prompt_tokens
    assert answer._request_id.startswith("req_")


def test_a_stream_has_the_text_of_the_whole_answer(shallow_client):
    # A forced token: texts that the model is free in differ in a close call once the cache has moved.
    forced = {"logit_bias": {"28": 100}}
    assert texts(said_by_shallow(shallow_client, stream=True, **forced)) == {
        0: said_by_shallow(shallow_client, **forced).choices[0].message.content
    }


def test_an_answer_that_ends_by_itself_says_stop(smollm_client):
    answer = said_by_smollm(
        smollm_client,
        messages=[{"role": "user", "content": "Say hi."}],
        max_tokens=200,
    )
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage.completion_tokens < 200


def test_a_stream_has_one_id_one_role_one_finish_reason_and_no_usage(client):
    chunks = list(create(client, stream=True))
    assert {(c.id, c.object, c.model, c.created) for c in chunks} == {
        (chunks[0].id, "chat.completion.chunk", TALES_CHAT, chunks[0].created)
    }
    choices = [choice for chunk in chunks for choice in chunk.choices]
    assert [choice.delta.role for choice in choices] == ["assistant"] + [None] * (len(choices) - 1)
    assert [c.finish_reason for c in choices] == [None] * (len(choices) - 1) + ["length"]
    assert all(chunk.choices for chunk in chunks)
    assert all(chunk.usage is None for chunk in chunks)


def test_include_usage_adds_a_last_chunk_without_choices(client):
    *chunks, last = create(client, stream=True, stream_options={"include_usage": True})
    assert last.choices == []
    assert last.usage.completion_tokens == 12
    assert last.usage.prompt_tokens == create(client).usage.prompt_tokens
    assert all(chunk.usage is None and chunk.choices for chunk in chunks)
    assert all("usage" in chunk.model_fields_set for chunk in chunks), "null, as OpenAI sends it"


def test_a_stream_ends_with_done_on_the_wire(tales_daemon: DaemonProcess):
    body = {"messages": ASK, "max_tokens": 3, "stream": True}
    reply = httpx.post(f"{tales_daemon.url}/v1/chat/completions", json=body, timeout=60)
    assert reply.headers["content-type"].startswith("text/event-stream")
    assert reply.headers["x-request-id"].startswith("req_")
    events = reply.text.split("\n\n")
    assert events[-2:] == ["data: [DONE]", ""]
    assert reply.text.count("[DONE]") == 1
    assert all(event.startswith("data: {") for event in events[:-2])


@pytest.mark.parametrize("options", [{"include_usage": True}, {}])
def test_stream_options_without_a_stream_are_refused(client, options):
    with pytest.raises(openai.BadRequestError, match="stream_options") as caught:
        create(client, stream_options=options)
    assert caught.value.param == "stream_options"


def test_n_answers_come_in_order_and_count_the_prompt_once(client):
    one = create(client)
    answer = create(client, n=3, temperature=1, seed=5, extra_body={"ignore_eos": True})
    assert [choice.index for choice in answer.choices] == [0, 1, 2]
    assert len({choice.message.content for choice in answer.choices}) > 1
    assert answer.usage.prompt_tokens == one.usage.prompt_tokens
    assert answer.usage.completion_tokens == 36


def test_a_stream_of_n_answers_gives_each_its_role_and_its_finish(client):
    chunks = list(create(client, n=3, temperature=1, seed=5, stream=True))
    assert {choice.index for chunk in chunks for choice in chunk.choices} == {0, 1, 2}
    choices = [choice for chunk in chunks for choice in chunk.choices]
    for index in range(3):
        mine = [choice for choice in choices if choice.index == index]
        assert [c.delta.role for c in mine] == ["assistant"] + [None] * (len(mine) - 1)
        assert [c.finish_reason for c in mine] == [None] * (len(mine) - 1) + [
            mine[-1].finish_reason
        ]
        assert mine[-1].finish_reason in ("length", "stop")


def test_a_stop_string_ends_the_answer_and_is_not_in_it(smollm_client):
    messages = [{"role": "user", "content": "Write a sentence about rivers."}]
    for stop in (" ", ["\x07", " "]):
        choice = said_by_smollm(smollm_client, messages=messages, stop=stop).choices[0]
        assert choice.finish_reason == "stop"
        assert choice.message.content and " " not in choice.message.content
        (text,) = texts(
            said_by_smollm(smollm_client, messages=messages, stop=stop, stream=True)
        ).values()
        assert text and " " not in text


def test_another_seed_gives_another_text(client):
    said = {
        create(client, temperature=1.2, seed=seed).choices[0].message.content for seed in range(4)
    }
    assert len(said) > 1


def test_logit_bias_can_force_a_token(shallow_client):
    answer = (
        said_by_shallow(shallow_client, logit_bias={"28": 100}, max_tokens=4)
        .choices[0]
        .message.content
    )
    assert len(set(answer)) == 1 and len(answer) == 4


@pytest.mark.parametrize("parts", [False, True], ids=["text", "parts"])
def test_a_prediction_changes_the_time_of_an_answer_only(shallow_client, parts):
    forced = {"logit_bias": {"28": 100}, "max_tokens": 24}
    text = said_by_shallow(shallow_client, **forced).choices[0].message.content
    content = [{"type": "text", "text": part} for part in (text[:5], text[5:])] if parts else text
    answer = said_by_shallow(
        shallow_client, **forced, prediction={"type": "content", "content": content}
    )
    assert answer.choices[0].message.content == text
    details = answer.usage.completion_tokens_details
    assert 0 <= details.accepted_prediction_tokens < 24
    assert details.rejected_prediction_tokens >= 0
    assert answer.usage.completion_tokens == 24


@pytest.mark.parametrize(
    "prediction",
    [{"type": "text", "content": "x"}, {"type": "content"}, {"type": "content", "content": 7}, "x"],
)
def test_a_prediction_that_is_none_is_a_400(client, prediction):
    with pytest.raises(openai.BadRequestError, match="prediction"):
        create(client, extra_body={"prediction": prediction})


def test_a_biased_token_outside_the_vocabulary_is_a_400_with_the_bound(shallow_client):
    with pytest.raises(openai.BadRequestError, match=r"999999.*49151") as caught:
        said_by_shallow(shallow_client, logit_bias={"999999": 1})
    assert caught.value.param == "logit_bias"


def test_max_completion_tokens_wins_over_max_tokens(client):
    assert create(client, max_completion_tokens=3, max_tokens=9).usage.completion_tokens == 3
    assert create(client, max_completion_tokens=3, max_tokens=None).usage.completion_tokens == 3


def test_the_developer_role_is_the_system_role(client):
    def prompt(role: str) -> openai.types.CompletionUsage:
        messages = [{"role": role, "content": "You are a pirate on a small ship."}, *ASK]
        return create(client, messages=messages, max_tokens=1).usage

    system, developer, user = prompt("system"), prompt("developer"), prompt("user")
    assert is_same_prompt(developer, system)
    assert user.prompt_tokens != system.prompt_tokens


def test_text_parts_are_joined(client):
    parts = [
        {"type": "text", "text": "Name three tall "},
        {"type": "text", "text": "trees of the north."},
    ]
    whole = [{"role": "user", "content": "Name three tall trees of the north."}]
    first = create(client, messages=whole, max_tokens=1).usage
    again = create(client, messages=[{"role": "user", "content": parts}], max_tokens=1).usage
    assert is_same_prompt(again, first)


@pytest.mark.parametrize("kind", ["image_url", "input_audio", "file"])
def test_a_part_that_is_no_text_is_a_400_that_names_its_type(client, kind):
    parts = [{"type": "text", "text": "What is this?"}, {"type": kind, kind: {"url": "data:,"}}]
    with pytest.raises(openai.BadRequestError, match=kind) as caught:
        create(client, messages=[{"role": "user", "content": parts}])
    assert caught.value.param == "messages"


@pytest.mark.parametrize("model", ["default", ""])
def test_the_default_model_answers_to_its_alias(client, model):
    assert create(client, model=model, max_tokens=1).model == TALES_CHAT


def test_a_repeated_prompt_is_found_in_the_cache(client):
    messages = [{"role": "user", "content": "Tell me of the sea. " * 12}]
    create(client, messages=messages, max_tokens=1)
    usage = create(client, messages=messages, max_tokens=1).usage
    assert usage.prompt_tokens_details.cached_tokens >= usage.prompt_tokens - 2


def test_the_tokens_of_a_chat_are_counted_without_an_answer(client):
    tool = {"type": "function", "function": {"name": "lamp", "parameters": {"type": "object"}}}

    def counted(**fields) -> int:
        body = {"model": TALES_CHAT, "messages": ASK} | fields
        reply = client.post("/chat/completions/input_tokens", body=body, cast_to=object)
        assert (reply["object"], reply["model"]) == ("chat.completion.input_tokens", TALES_CHAT)
        return reply["input_tokens"]

    assert counted() == create(client, max_tokens=1).usage.prompt_tokens
    assert counted(tools=[tool], stream=True, max_tokens=5) > counted()
    with pytest.raises(openai.BadRequestError) as caught:
        counted(messages=[])
    assert caught.value.param == "messages"


def test_a_chat_may_have_a_priority_within_bounds(client):
    assert create(client, max_tokens=1, extra_body={"priority": -100}).choices
    with pytest.raises(openai.BadRequestError) as caught:
        create(client, extra_body={"priority": 101})
    assert caught.value.param == "priority"


def test_fields_that_are_accepted_and_ignored_change_nothing(client):
    first = create(client).usage
    again = create(
        client, user="u", metadata={"a": "b"}, store=False, service_tier="auto", tools=None,
        parallel_tool_calls=True, response_format={"type": "text"}, tool_choice="none",
    ).usage  # fmt: skip
    assert is_same_prompt(again, first)


def test_a_replayed_answer_may_carry_all_that_the_sdk_puts_into_it(client):
    answer = create(client).choices[0].message
    messages = [*ASK, answer.model_dump(), {"role": "user", "content": "And three more."}]
    assert create(client, messages=messages).choices[0].message.content


async def test_the_asynchronous_client_streams_too(tales_daemon: DaemonProcess):
    async with openai.AsyncOpenAI(
        base_url=f"{tales_daemon.url}/v1", api_key="x", _strict_response_validation=True
    ) as client:
        stream = await client.chat.completions.create(
            model=TALES_CHAT,
            messages=ASK,
            max_tokens=5,
            stream=True,
            extra_body={"ignore_eos": True},
        )
        choices = [choice async for chunk in stream for choice in chunk.choices]
    assert choices[-1].finish_reason == "length"


@pytest.mark.parametrize(
    "flags",
    [
        {"continue_final_message": True},
        {"continue_final_message": True, "add_generation_prompt": False},
        {"add_generation_prompt": False},
    ],
)
def test_a_trailing_answer_is_continued_where_that_is_asked_for(shallow_client, flags):
    begun = [*ASK, {"role": "assistant", "content": "The three colours are red, green and"}]
    whole = said_by_shallow(shallow_client, messages=begun)
    answer = said_by_shallow(shallow_client, messages=begun, extra_body=flags)
    # Neither the end of that turn nor another turn's opening.
    assert whole.usage.prompt_tokens - answer.usage.prompt_tokens == 6
    assert "The three" not in answer.choices[0].message.content


def test_a_prompt_may_end_without_the_opening_of_an_answer(shallow_client):
    with_opening = said_by_shallow(shallow_client).usage.prompt_tokens
    without = said_by_shallow(
        shallow_client, extra_body={"add_generation_prompt": False}
    ).usage.prompt_tokens
    assert with_opening - without == 4


@pytest.mark.parametrize(
    ("messages", "flags", "param"),
    [
        (ASK, {"continue_final_message": True}, "continue_final_message"),
        ([{"role": "assistant", "content": "Well"}], {"continue_final_message": True},
         "continue_final_message"),
        ([*ASK, {"role": "assistant", "content": "Well"}],
         {"continue_final_message": True, "add_generation_prompt": True}, "add_generation_prompt"),
    ],
)  # fmt: skip
def test_what_cannot_be_continued_is_refused(client, messages, flags, param):
    with pytest.raises(openai.BadRequestError, match=param) as caught:
        create(client, messages=messages, extra_body=flags)
    assert caught.value.param == param


@pytest.mark.parametrize("role", ["system", "developer", "user"])
@pytest.mark.parametrize("message", [{}, {"content": None}])
def test_a_message_without_content_is_refused(client, role, message):
    with pytest.raises(openai.BadRequestError, match=f"role `{role}` needs `content`") as caught:
        create(client, messages=[{"role": role, **message}, *ASK])
    assert caught.value.param == "messages.0"


def test_an_unknown_route_is_not_found_and_others_are_named(client):
    with pytest.raises(openai.NotFoundError, match="No route is called 'auto:x'") as caught:
        create(client, model="auto:x")
    assert caught.value.code == "model_not_found"
    assert caught.value.param == "model"
