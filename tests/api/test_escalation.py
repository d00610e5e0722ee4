"""The default pair: a small assistant that hands over what it is not sure of."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest

from tests.conftest import SMOLLM, DaemonProcess, serving
from tests.routing.assist import functions

SMALL = "edge-assistant-s"
STRANGE = "why do cats purr"
# Each token of a long prompt takes the larger model a hundredth of a second.
SMALL_HOME = """You are a voice assistant for Home Assistant.
Static Context: An overview of the areas and the devices in this smart home:
- names: Kitchen Light
  domain: light
  areas: Kitchen
"""


@pytest.fixture(scope="module")
def daemon(
    shipped_assistant: Path, smollm_dir: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[DaemonProcess]:
    state = tmp_path_factory.mktemp("state")
    shipped = str(shipped_assistant)
    with serving(smollm_dir, state, shipped_models_dir=shipped, n_ctx=1024, n_seq=2) as daemon:
        yield daemon


@pytest.fixture(scope="module")
def pair(daemon: DaemonProcess) -> Iterator[openai.OpenAI]:
    with daemon.client() as client:
        yield client


def ask(client: openai.OpenAI, text: str, **options: Any) -> Any:
    options = {"model": "default", "max_tokens": 4, "temperature": 0} | options
    return client.chat.completions.create(messages=[{"role": "user", "content": text}], **options)


def test_what_the_small_model_knows_it_answers(pair):
    answer = ask(pair, "set a timer", metadata={"domain": "assistant", "calls": "true"})
    assert (answer.model, answer.model_extra["edgeagent"]["route"]) == (SMALL, "default")
    assert answer.choices[0].message.tool_calls[0].function.name == "timer"


def test_a_client_without_tools_is_told_of_a_call_in_words(pair):
    answer = ask(pair, "set a timer", metadata={"domain": "assistant"})
    (choice,) = answer.choices
    assert (answer.model, choice.finish_reason) == (SMALL, "stop")
    assert (choice.message.content, choice.message.tool_calls) == ("This asks for timer.", None)
    assert answer.model_extra["edgeagent"]["call"] == {"name": "timer", "arguments": {}}


def test_rules_for_the_clients_tools_come_before_the_larger_model(pair):
    messages = [
        {"role": "system", "content": SMALL_HOME},
        {"role": "user", "content": "kitchen light on"},
    ]
    answer = pair.chat.completions.create(
        model="default", messages=messages, tools=functions(), max_tokens=4
    )
    assert (answer.model, answer.choices[0].finish_reason) == (SMALL, "tool_calls")
    messages[1]["content"] = "why is the sky blue"
    answer = pair.chat.completions.create(
        model="default", messages=messages, tools=functions(["HassTurnOn"]), max_tokens=4
    )
    assert answer.model == SMOLLM


def test_what_it_is_not_sure_of_goes_to_the_larger_one(pair):
    answer = ask(pair, STRANGE)
    assert (answer.model, answer.choices[0].finish_reason) == (SMOLLM, "length")
    assert answer.choices[0].message.content
    own = answer.model_extra["edgeagent"]
    assert (own["route"], own["confidence"]["abstained"]) == ("escalated", True)


def test_a_stream_says_so_too(pair):
    *_, last = ask(pair, STRANGE, stream=True)
    assert last.model == SMOLLM
    assert last.model_extra["edgeagent"]["route"] == "escalated"


@pytest.mark.parametrize(
    "options",
    [{"model": SMALL}, {"metadata": {"escalate": "false"}}],
    ids=["named", "asked not to"],
)
def test_it_stays_where_the_client_wants_it(pair, options):
    answer = ask(pair, STRANGE, **options)
    assert (answer.model, answer.choices[0].finish_reason) == (SMALL, "stop")
    assert answer.model_extra["edgeagent"]["confidence"]["abstained"]


@pytest.mark.parametrize(
    ("text", "options"),
    [
        ("set a timer", {"response_format": {"type": "json_object"}}),
        ("set a timer", {"logprobs": True}),
        ("set a timer", {"tools": [{"type": "function", "function": {"name": "open_door"}}]}),
        ("set a timer " * 34, {}),
    ],
    ids=["form", "logprobs", "other tools", "too long"],
)
def test_what_the_small_model_does_not_do_the_larger_one_does(pair, text, options):
    answer = ask(pair, text, **options)
    assert answer.model == SMOLLM


def test_messages_without_a_users_go_to_the_larger_one(pair):
    given: list[Any] = [{"role": "system", "content": "You greet whoever comes."}]
    answer = pair.chat.completions.create(model="auto", messages=given, max_tokens=1)
    assert answer.model == SMOLLM
    with pytest.raises(openai.BadRequestError, match="last message"):
        pair.chat.completions.create(model=SMALL, messages=given)


def test_an_unknown_domain_is_refused_whoever_could_answer(pair):
    with pytest.raises(openai.BadRequestError, match="assistant, service, skills"):
        ask(pair, STRANGE, metadata={"domain": "kitchen"})


def test_a_response_and_a_text_to_continue_go_to_the_larger_one(pair):
    answer = pair.responses.create(model="default", input=STRANGE, max_output_tokens=4)
    assert answer.model == SMOLLM
    assert answer.model_extra["edgeagent"]["confidence"]["abstained"]
    assert pair.completions.create(model="default", prompt="Once", max_tokens=1).model == SMOLLM


def test_the_model_list_names_both_and_the_default(pair):
    found = {model.id: model for model in pair.models.list()}
    assert {SMALL, SMOLLM} <= found.keys()
    assert pair.models.retrieve("default").id == SMALL
