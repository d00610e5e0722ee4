"""Applies the mapping of tools to one request: which calls to make, and how to report their results."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from edgeagent.routing.home_assistant.commands import Command, Commands, plain_name
from edgeagent.routing.home_assistant.entities import listed
from edgeagent.routing.home_assistant.results import told
from edgeagent.routing.home_assistant.rules import RuleBook
from edgeagent.routing.home_assistant.targets import Home
from edgeagent.types.tools import Tool

# The sentence by which Home Assistant names the area of the voice satellite.
_HERE = re.compile(r"You are in area ([^\n(]+?)(?: \(floor [^)]*\))? and all generic commands")


def is_mapped(book: RuleBook, tools: Iterable[Tool]) -> bool:
    """Whether any tool of the client is in the mapping."""
    return any(plain_name(tool.name) in book.tools for tool in tools)


def commands_of(
    book: RuleBook, tools: Sequence[Tool], messages: Sequence[Mapping[str, Any]]
) -> Commands:
    """The rules that apply to one request."""
    home = Home(listed(messages), book.nouns)
    for message in messages:
        if message.get("role") in ("system", "developer"):
            found = _HERE.search(str(message.get("content") or ""))
            if found and (place := home.place(found[1].casefold().split())):
                home.here = place[0]
    return Commands(book, tools, home)


def answer_to_results(command: Command | None, messages: Sequence[Mapping[str, Any]]) -> str | None:
    """The results of the last calls as a sentence; None where the last message is not a result."""
    results: list[str] = []
    for message in reversed(messages):
        if message.get("role") != "tool":
            break
        results.insert(0, str(message.get("content") or ""))
    return told(command, results) if results else None
