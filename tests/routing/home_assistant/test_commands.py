"""What the shipped rules make of sentences to a smart home."""

from __future__ import annotations

from typing import Any

import pytest

from edgeagent.routing import SHIPPED_RULES
from edgeagent.routing.home_assistant.commands import Command, Commands
from edgeagent.routing.home_assistant.rules import read_rules
from edgeagent.routing.home_assistant.tool_mapping import commands_of, is_mapped
from edgeagent.types.tools import Tool
from tests.routing.assist import HOME, SLOTS, schema
from tests.routing.home_assistant.phrasings import (
    DEVELOPMENT,
    HELD_OUT,
    KITCHEN,
    KITCHEN_TOO,
    REFUSED,
    TOOLS_CALLED,
    UNCLEAR,
    Call,
)


def commands(*names: str, home: str = HOME, tools: list[Tool] | None = None) -> Commands:
    offered = tools or [Tool(name=name, parameters=schema(name)) for name in names or SLOTS]
    return commands_of(read_rules(SHIPPED_RULES), offered, [{"role": "system", "content": home}])


ALL = commands()


def is_right(command: Command | None, calls: list[Call]) -> bool:
    if command is None or len(command.calls) != 1:
        return False
    (made,) = command.calls
    return any(
        made.name == name and all(made.arguments.get(key) == value for key, value in slots.items())
        for name, slots in calls
    )


def read(text: str, **options: Any) -> list[tuple[str, dict[str, Any]]]:
    command = commands(**options).read(text) if options else ALL.read(text)
    return [(call.name, call.arguments) for call in command.calls] if command else []


@pytest.mark.parametrize("text", [*DEVELOPMENT, *KITCHEN_TOO])
def test_a_light_is_turned_on_in_many_words(text):
    assert is_right(ALL.read(text), KITCHEN)


def test_most_phrasings_that_were_kept_back_are_understood():
    wrong = [text for text, calls in HELD_OUT if not is_right(ALL.read(text), calls)]
    assert len(HELD_OUT) - len(wrong) >= 58, wrong


@pytest.mark.parametrize(("text", "tool"), TOOLS_CALLED)
def test_a_request_calls_the_tool_that_it_asks_for(text, tool):
    assert [name for name, _ in read(text)][:1] == ([tool] if tool else [])


@pytest.mark.parametrize("text", [*REFUSED, *UNCLEAR])
def test_what_is_no_command_calls_nothing(text):
    command = ALL.read(text)
    assert command is None or not command.calls


@pytest.mark.parametrize("text", [text for text, _ in HELD_OUT])
def test_only_names_of_the_list_are_ever_called(text):
    known = {"Kitchen", "Bedroom", "Living Room", "Office", "Garage", "Hallway"}
    listed = {line.partition(":")[2] for line in HOME.splitlines() if "names:" in line}
    known |= {name.strip() for names in listed for name in names.split(",")}
    command = ALL.read(text)
    for call in command.calls if command else ():
        if "Timer" not in call.name:
            for key in ("name", "area"):
                assert call.arguments.get(key) in known | {None}


@pytest.mark.parametrize(
    ("text", "calls"),
    [
        (
            "turn on the kitchen light and the desk lamp",
            [("HassTurnOn", "Kitchen Light"), ("HassTurnOn", "Desk Lamp")],
        ),
        (
            "turn off the desk lamp and close the garage door",
            [("HassTurnOff", "Desk Lamp"), ("HassTurnOff", "Garage Door")],
        ),
        ("turn on the kitchen light and sing a song", []),
    ],
)
def test_several_are_all_understood_or_none_is(text, calls):
    assert [(name, slots["name"]) for name, slots in read(text)] == calls


def test_what_is_meant_for_later_is_not_done_now():
    (call,) = read("turn off the kitchen light in 5 minutes")
    assert call == (
        "HassStartTimer",
        {"minutes": 5, "conversation_command": "turn off the kitchen light"},
    )
    assert commands("HassTurnOff").read("turn off the kitchen light in 5 minutes") is None


def test_one_of_several_devices_is_asked_for():
    command = ALL.read("turn on the light")
    assert command is not None and not command.calls
    assert command.question is not None and command.question.startswith("Which one do you mean: ")
    assert "Bedroom Ceiling Light (Bedroom)" in command.question


def test_the_area_of_a_satellite_decides_among_them():
    here = "You are in area Kitchen (floor Ground) and all generic commands target this area.\n"
    (call,) = read("turn on the light", home=here + HOME)
    assert call[1]["name"] == "Kitchen Light"


def test_two_devices_of_one_name_are_told_apart_by_their_areas():
    twins = "- names: Lamp\n  domain: light\n  areas: Den\n- names: Lamp\n  domain: light\n  areas: Loft\n"
    (call,) = read("turn on the lamp in the loft", home=twins)
    assert (call[1]["name"], call[1]["area"]) == ("Lamp", "Loft")
    command = commands(home=twins).read("turn on the lamp")
    assert (
        command is not None
        and command.question == "Which one do you mean: Lamp (Den) or Lamp (Loft)?"
    )


@pytest.mark.parametrize(
    ("parameters", "arguments"),
    [
        ({"type": "object", "properties": {"name": {"type": "string"}}}, {"name": "Kitchen Light"}),
        (
            {
                "type": "object",
                "properties": {
                    "name": {"type": ["string", "null"]},
                    "area": {"type": ["string", "null"]},
                    "domain": {"type": "string", "enum": ["light", "switch"]},
                },
                "required": ["name", "area", "domain"],
                "additionalProperties": False,
            },
            {"name": "Kitchen Light", "domain": "light", "area": None},
        ),
        ({}, {"name": "Kitchen Light", "domain": ["light"]}),
    ],
    ids=["name only", "strict", "no schema"],
)
def test_arguments_have_the_types_of_the_clients_schema(parameters, arguments):
    tools = [Tool(name="assist__HassTurnOn", parameters=parameters)]
    (call,) = commands(tools=tools).read("turn on the kitchen light").calls  # type: ignore[union-attr]
    assert (call.name, call.arguments) == ("assist__HassTurnOn", arguments)


def test_a_tool_that_needs_what_nobody_said_is_not_called():
    parameters = {
        "type": "object",
        "properties": {"name": {"type": "string"}, "pin": {"type": "string"}},
    }
    tools = [Tool(name="HassTurnOn", parameters=parameters | {"required": ["name", "pin"]})]
    assert commands(tools=tools).read("turn on the kitchen light") is None


def test_without_a_list_of_devices_nothing_is_named():
    assert commands(home="You are a helpful assistant.").read("turn on the kitchen light") is None


def test_only_tools_that_are_offered_are_called():
    assert commands("HassTurnOff").read("turn on the kitchen light") is None
    book = read_rules(SHIPPED_RULES)
    assert is_mapped(book, [Tool(name="assist__HassTurnOn")])
    assert not is_mapped(book, [Tool(name="get_weather")])


def test_devices_are_read_from_the_systems_messages_only():
    lies = [
        {"role": "user", "content": "- names: Sauna\n  domain: switch\n"},
        {"role": "tool", "content": "- names: Sauna\n  domain: switch\n"},
    ]
    tools = [Tool(name="HassTurnOn", parameters=schema("HassTurnOn"))]
    assert commands_of(read_rules(SHIPPED_RULES), tools, lies).read("turn on the sauna") is None


def test_an_intent_counts_where_all_that_its_tool_needs_is_said():
    found = ALL.of_intent("timer", "i need something like 20 minutes on the clock")
    assert found is not None and found.calls[0].arguments == {"minutes": 20}
    assert ALL.of_intent("timer", "a timer maybe") is None
    assert ALL.of_intent("play_music", "play jazz") is None


def test_a_text_that_is_no_command_by_its_length_is_not_compared():
    assert ALL.read("turn on the kitchen light " * 12) is None


HOMES = {
    "without areas": "- names: Kitchen Light\n  domain: light\n- names: Bedroom Lamp\n  domain: light\n",
    "two lights": "- names: Kitchen Ceiling Light\n  domain: light\n  areas: Kitchen\n"
    "- names: Kitchen Counter Light\n  domain: light\n  areas: Kitchen\n",
    "by id": "light.kitchen_light:\n  names: Kitchen Light\n  state: 'off'\n  areas: Kitchen\n",
    "decoys": "- names: Kitchen Light\n  domain: light\n  areas: Kitchen\n"
    "- names: Kitchen Light Switch\n  domain: switch\n  areas: Kitchen\n"
    "- names: Kitchen Light Power\n  domain: sensor\n  areas: Kitchen\n",
}


@pytest.mark.parametrize("home", HOMES.values(), ids=HOMES.keys())
def test_the_words_do_not_depend_on_one_home(home):
    here = commands(home=home)
    for text in [*DEVELOPMENT, *KITCHEN_TOO]:
        command = here.read(text)
        assert command is not None and command.calls, text
        for call in command.calls:
            assert call.name == "HassTurnOn"
            assert "Kitchen" in (call.arguments.get("name") or call.arguments["area"])
