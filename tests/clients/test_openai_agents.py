"""`openai-agents`: an agent with a tool, run against our Responses API and against chat completions."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any, Literal

import openai
import pytest
from pydantic import BaseModel

from tests.conftest import TALES_CHAT, DaemonProcess
from tests.lazy import lazily

if TYPE_CHECKING:
    import agents
else:
    agents = lazily("agents")

KINDS = {"responses": "OpenAIResponsesModel", "chat": "OpenAIChatCompletionsModel"}
# Free text ends with its first sentence: the SDK raises where it runs out of tokens, and what a small model
# goes on to say depends on the processor.
ONE_SENTENCE = {"stop": [".", "!", "?"]}


class Report(BaseModel):
    """What was done."""

    room: Literal["hall", "attic"]
    is_lit: bool


@pytest.fixture(scope="module")
async def sdk(tales_daemon: DaemonProcess) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(
        base_url=f"{tales_daemon.url}/v1", api_key="none", max_retries=0, timeout=60
    ) as client:
        yield client


def model_of(kind: str, sdk: openai.AsyncOpenAI, name: str) -> agents.Model:
    agents.set_tracing_disabled(True)
    return getattr(agents, KINDS[kind])(model=name, openai_client=sdk)


@pytest.fixture(params=sorted(KINDS))
def model(request: pytest.FixtureRequest, sdk: openai.AsyncOpenAI) -> agents.Model:
    return model_of(request.param, sdk, TALES_CHAT)


def agent_of(
    model: agents.Model, **options: Any
) -> tuple[agents.Agent[None], list[tuple[str, bool]]]:
    """An agent that must switch one lamp and then says something, and what it switched."""
    switched: list[tuple[str, bool]] = []

    @agents.function_tool(is_enabled=lambda _context, _agent: not switched)
    def lamp(room: Literal["hall", "attic"], on: bool) -> str:
        """Switch a lamp."""
        switched.append((room, on))
        return f"The lamp in the {room} is {'on' if on else 'off'}."

    own: dict[str, Any] = {
        "name": "Janitor",
        "instructions": "You switch lamps.",
        "tools": [lamp],
        "model_settings": agents.ModelSettings(
            temperature=0,
            max_tokens=300,
            tool_choice="required",
            parallel_tool_calls=False,
            extra_body=ONE_SENTENCE,
        ),
    }
    return agents.Agent(model=model, **(own | options)), switched


async def test_an_agent_calls_its_tool_and_answers(model: agents.Model):
    agent, switched = agent_of(model)
    result = await agents.Runner.run(agent, "Switch the lamp in the hall on.", max_turns=3)
    assert len(switched) == 1
    kinds = [item.type for item in result.new_items]
    assert kinds[0] == "tool_call_item" and kinds[-2:] == [
        "tool_call_output_item",
        "message_output_item",
    ]
    assert isinstance(result.final_output, str) and result.final_output
    usage = result.context_wrapper.usage
    assert usage.requests >= 2 and usage.input_tokens > 0 and usage.output_tokens > 0


async def test_a_streamed_run_tells_of_calls_and_text(model: agents.Model):
    agent, switched = agent_of(model)
    result = agents.Runner.run_streamed(agent, "Switch the lamp in the attic off.", max_turns=3)
    names, text = [], ""
    async for event in result.stream_events():
        if event.type == "run_item_stream_event":
            names.append(event.name)
        elif event.type == "raw_response_event" and event.data.type == "response.output_text.delta":
            text += event.data.delta
    assert names == ["tool_called", "tool_output", "message_output_created"]
    assert len(switched) == 1
    assert text.endswith(result.final_output)


async def test_the_final_output_has_the_type_asked_for(model: agents.Model):
    settings = agents.ModelSettings(temperature=0, max_tokens=60)
    agent, _ = agent_of(model, tools=[], output_type=Report, model_settings=settings)
    result = await agents.Runner.run(agent, "The hall is lit. Report.")
    assert isinstance(result.final_output, Report)


async def test_an_agent_hands_over_to_another(model: agents.Model):
    settings = agents.ModelSettings(temperature=0, max_tokens=300, extra_body=ONE_SENTENCE)
    helper = agents.Agent(
        name="Helper", instructions="Say thanks.", model=model, model_settings=settings
    )
    first = agents.Agent(
        name="Desk", instructions="Hand over.", model=model, handoffs=[helper],
        model_settings=agents.ModelSettings(temperature=0, max_tokens=300, tool_choice="required"),
    )  # fmt: skip
    result = await agents.Runner.run(first, "I need help.", max_turns=3)
    assert result.last_agent is helper and result.final_output


async def test_a_chain_goes_on_behind_the_last_response(sdk: openai.AsyncOpenAI):
    settings = agents.ModelSettings(
        temperature=0, max_tokens=300, store=True, extra_body=ONE_SENTENCE
    )
    model = agents.OpenAIResponsesModel(model=TALES_CHAT, openai_client=sdk)
    agent = agents.Agent(
        name="Clerk", instructions="Answer in one word.", model=model, model_settings=settings
    )
    first = await agents.Runner.run(agent, "My boat is called Anna.")
    assert first.last_response_id is not None
    second = await agents.Runner.run(
        agent, "What is it called?", previous_response_id=first.last_response_id
    )
    assert second.final_output
    assert second.context_wrapper.usage.input_tokens_details.cached_tokens > 0


async def test_errors_are_those_of_the_sdk(sdk: openai.AsyncOpenAI):
    for kind in KINDS:
        agent, _ = agent_of(model_of(kind, sdk, "gpt-4o"))
        with pytest.raises(openai.NotFoundError, match="gpt-4o"):
            await agents.Runner.run(agent, "Hi")
        agent, _ = agent_of(model_of(kind, sdk, TALES_CHAT))
        with pytest.raises(openai.BadRequestError, match="maximum context length is 4096"):
            await agents.Runner.run(agent, "rain " * 5000)
