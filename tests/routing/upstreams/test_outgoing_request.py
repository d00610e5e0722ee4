"""Our request in OpenAI's format."""

from __future__ import annotations

import msgspec
import pytest

from edgeagent.errors import UnsupportedParameter
from edgeagent.routing.upstreams.outgoing_request import BLANK, outgoing_messages, outgoing_request
from edgeagent.types.generation import Form, GenerateSpec
from edgeagent.types.prompt import Prompt
from edgeagent.types.sampling import Sampling
from edgeagent.types.tools import Tool, ToolUse

HELLO = Prompt(messages=[{"role": "user", "content": "Hello"}])


def body(**given):
    prompts = given.pop("prompts", [HELLO])
    given = {"sampling": BLANK} | given
    return outgoing_request(GenerateSpec(prompts=prompts, **given), "m").body


def test_only_what_the_client_gave_is_sent():
    assert set(body()) == {"model", "stream", "stream_options", "messages"}
    # The defaults of an engine here are values like any other, where the client gave them.
    default = Sampling()
    given = body(sampling=default)
    for name in ("temperature", "top_k", "top_p", "min_p", "repeat_last_n", "presence_penalty"):
        assert given[name] == getattr(default, name)
    cold = msgspec.structs.replace(BLANK, temperature=0.0, seed=1, logit_bias={7: -1.0})
    given = body(sampling=cold, max_tokens=3, n=2, stop=["a"])
    told = {name: given[name] for name in ("temperature", "seed", "logit_bias", "max_tokens", "n")}
    assert told == {
        "temperature": 0.0,
        "seed": 1,
        "logit_bias": {"7": -1.0},
        "max_tokens": 3,
        "n": 2,
    }
    assert "top_p" not in given


def test_tokens_are_estimated_by_everything_that_is_sent():
    def n_tokens(**given):
        spec = GenerateSpec(**{"sampling": BLANK, "prompts": [HELLO]} | given)
        return outgoing_request(spec, "m").n_prompt_tokens

    assert n_tokens() == 2
    assert n_tokens(prompts=[Prompt(messages=[{"role": "user", "content": ""}])]) == 1
    assert n_tokens(prompts=[Prompt(text="x" * 400), Prompt(text="x" * 400)]) == 200
    long = Tool(name="a", description="x" * 400)
    assert n_tokens(tools=ToolUse(tools=[long])) > 100
    call = {"function": {"name": "a", "arguments": {"x": "y" * 400}}}
    assert n_tokens(prompts=[Prompt(messages=[{"role": "assistant", "tool_calls": [call]}])]) > 100


def test_tools_choices_and_variables():
    use = ToolUse(tools=[Tool(name="a")], name="a", is_parallel=False)
    given = body(tools=use, prompts=[
        Prompt(messages=HELLO.messages, prefill="Dear", variables={"reasoning_effort": "low", "x": 1})
    ])  # fmt: skip
    assert given["tools"] == [{"type": "function", "function": {"name": "a"}}]
    assert given["tool_choice"] == {"type": "function", "function": {"name": "a"}}
    assert given["parallel_tool_calls"] is False
    assert given["reasoning_effort"] == "low" and given["chat_template_kwargs"] == {"x": 1}
    assert given["messages"][-1] == {"role": "assistant", "content": "Dear"}
    assert given["continue_final_message"] and not given["add_generation_prompt"]
    assert "tool_choice" not in body(tools=ToolUse(tools=[Tool(name="a")]))


def test_calls_without_ids_get_some_and_results_are_joined_to_them():
    calls = [{"function": {"name": "a", "arguments": {"x": 1}}}, {"function": {"name": "b"}}]
    told = outgoing_messages(
        Prompt(
            messages=[
                {"role": "assistant", "content": "", "tool_calls": calls},
                {"role": "tool", "tool_name": "a", "content": "1"},
                {"role": "tool", "tool_name": "b", "content": "2"},
            ]
        )
    )
    first, second = told[0]["tool_calls"]
    assert first["function"] == {"name": "a", "arguments": '{"x": 1}'}
    assert [told[1]["tool_call_id"], told[2]["tool_call_id"]] == [first["id"], second["id"]]


def test_texts_are_continued_and_what_cannot_be_said_is_refused():
    given = body(prompts=[Prompt(text="a", suffix="z"), Prompt(text="b", suffix="z")])
    assert given["prompt"] == ["a", "b"] and given["suffix"] == "z" and "messages" not in given
    refused = [
        {"prompts": [Prompt(tokens=[1])]},
        {"prompts": [Prompt(text="a")], "logprobs": 1},
        {"form": Form(kind="lark", text="start: A")},
    ]
    for one in refused:
        with pytest.raises(UnsupportedParameter):
            body(**one)


def test_the_counts_have_no_content():
    outgoing = outgoing_request(GenerateSpec(prompts=[HELLO]), "m")
    assert outgoing.counts == "messages:1 characters:5 tools:0"
