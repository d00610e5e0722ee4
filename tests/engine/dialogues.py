"""Dialogues as clients send them, twenty kinds, for the templates of all families."""

from __future__ import annotations

from typing import Any

from edgeagent.types.tools import Tool, ToolUse

Message = dict[str, Any]


def system(text: str) -> Message:
    return {"role": "system", "content": text}


def user(text: str) -> Message:
    return {"role": "user", "content": text}


def assistant(text: str, *calls: tuple[str, str]) -> Message:
    message: Message = {"role": "assistant", "content": text}
    if calls:
        message["tool_calls"] = [
            {"id": f"call_00000000{name[0]}", "type": "function",
             "function": {"name": name, "arguments": arguments}}
            for name, arguments in calls
        ]  # fmt: skip
    return message


def result(name: str, text: str) -> Message:
    return {"role": "tool", "tool_call_id": f"call_00000000{name[0]}", "content": text}


LAMP = ("lamp", '{"on": true}')
CLOCK = ("clock", "{}")
USE = ToolUse(
    tools=[
        Tool(name="lamp", description="Switch a lamp", parameters={
            "type": "object", "properties": {"on": {"type": "boolean"}}}),
        Tool(name="clock"),
    ]
)  # fmt: skip

DIALOGUES: dict[str, tuple[list[Message], ToolUse | None]] = {
    "a question": ([user("Hi there")], None),
    "a system message": ([system("Be brief"), user("Hi there")], None),
    "a longer one": ([system("Be brief"), user("One?"), assistant("Two"), user("Three?")], None),
    "two questions in a row": ([user("One?"), user("Two?")], None),
    "two answers in a row": ([user("One?"), assistant("Two"), assistant("Three"), user("Four?")], None),
    "an answer first": ([assistant("Welcome"), user("One?")], None),
    "a system message and an answer first": (
        [system("Be brief"), assistant("Welcome"), user("One?")], None),
    "a late system message": (
        [user("One?"), assistant("Two"), system("Be brief"), user("Three?")], None),
    "two system messages": ([system("Be brief"), system("Be kind"), user("One?")], None),
    "a system message at the end": ([user("One?"), system("Be brief")], None),
    "a system message alone": ([system("Be brief")], None),
    "an answer at the end": ([user("One?"), assistant("Two")], None),
    "tools": ([user("Light!")], USE),
    "tools and a system message": ([system("Be brief"), user("Light!")], USE),
    "a call and its result": (
        [user("Light!"), assistant("", LAMP), result("lamp", "It is on")], USE),
    "calls side by side": (
        [user("Light, time?"), assistant("", LAMP, CLOCK), result("lamp", "It is on"),
         result("clock", "Noon"), assistant("Done"), user("Thanks")], USE),
    "a question behind a result": (
        [user("Light!"), assistant("Sure", LAMP), result("lamp", "It is on"), user("And now?")], USE),
    "past calls without tools": (
        [user("Time?"), assistant("", CLOCK), result("clock", "Noon"), assistant("Noon"), user("Ok")],
        None),
    "many lines and signs": ([user("a < b\n\n\n[x] | {y}\n<table>\n\ttail")], None),
    "past reasoning": (
        [user("One?"), assistant("<think>\nHm\n</think>\n\nTwo"), user("Three?")], None),
}  # fmt: skip
