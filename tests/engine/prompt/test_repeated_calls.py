"""The rule that ends a loop of calls."""

from __future__ import annotations

import pytest

from edgeagent.engine.prompt.repeated_calls import is_looping, without_looping_tools
from edgeagent.types.generation import GenerateSpec
from edgeagent.types.prompt import Prompt
from edgeagent.types.tools import Tool, ToolUse
from tests.engine.dialogues import CLOCK, LAMP, Message, assistant, result, user

ONCE = [assistant("", LAMP), result("lamp", "on")]
OTHER = [assistant("", ("lamp", '{"on": false}')), result("lamp", "off")]
SPACED = [assistant("Again", ("lamp", '{ "on":true }')), result("lamp", "still on")]
BOTH = [assistant("", LAMP, CLOCK), result("lamp", "on"), result("clock", "Noon")]
TURNED = [assistant("", CLOCK, LAMP), result("clock", "Noon"), result("lamp", "on")]


@pytest.mark.parametrize(
    ("messages", "is_loop"),
    [
        ([], False),
        ([user("Light!")], False),
        (ONCE, False),
        ([user("Light!"), *ONCE, *ONCE], True),
        ([*ONCE, *SPACED], True),  # the same arguments, written otherwise
        ([*BOTH, *TURNED], True),
        ([*ONCE, *OTHER], False),
        ([*OTHER, *ONCE, *ONCE], True),
        ([*ONCE, *OTHER, *ONCE], False),
        ([*ONCE, *BOTH], False),
        ([*ONCE, user("Again, please"), *ONCE], False),  # it was asked to
        ([*ONCE, *ONCE, user("Thanks")], False),
        ([*ONCE, *ONCE, assistant("It is on")], False),
        ([*ONCE, assistant("", LAMP)], False),  # without a result
        ([*BOTH, assistant("", LAMP, CLOCK), result("lamp", "on")], False),
        ([*ONCE, assistant("", ("lamp", "{nonsense")), result("lamp", "?")], False),
        ([assistant("", ("clock", "")), result("clock", "Noon"), *BOTH[:0],
          assistant("", CLOCK), result("clock", "Noon")], True),
        ([result("lamp", "on"), result("lamp", "on")], False),
    ],
)  # fmt: skip
def test_two_rounds_of_the_same_calls_with_their_results_are_a_loop(
    messages: list[Message], is_loop: bool
):
    assert is_looping(messages) is is_loop


@pytest.mark.parametrize(
    ("use", "stays"),
    [
        (ToolUse(tools=[Tool(name="lamp")]), False),
        (ToolUse(tools=[Tool(name="lamp")], choice="required"), True),
        (ToolUse(tools=[Tool(name="lamp")], choice="required", name="lamp"), True),
    ],
)
def test_only_tools_that_the_model_may_leave_are_taken_away(use, stays):
    looping = GenerateSpec(prompts=[Prompt(messages=[user("Light!"), *ONCE, *ONCE])], tools=use)
    assert without_looping_tools(looping).tools == (use if stays else None)
    fine = GenerateSpec(prompts=[Prompt(messages=[user("Light!"), *ONCE])], tools=use)
    assert without_looping_tools(fine) is fine
