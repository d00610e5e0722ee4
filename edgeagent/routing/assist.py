"""A client's tools that the mapping knows: what is called, and what is said of results."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from edgeagent.routing.commands import Command, Commands, plain_name
from edgeagent.routing.entities import listed
from edgeagent.routing.results import told
from edgeagent.routing.rules import RuleBook
from edgeagent.routing.targets import Home
from edgeagent.types.tools import Tool

# How Home Assistant tells a model of the satellite that it hears.
_HERE = re.compile(r"You are in area ([^\n(]+?)(?: \(floor [^)]*\))? and all generic commands")


def is_mapped(book: RuleBook, tools: Iterable[Tool]) -> bool:
    """Whether any of a client's tools is in the mapping."""
    return any(plain_name(tool.name) in book.tools for tool in tools)


def commands_of(
    book: RuleBook, tools: Sequence[Tool], messages: Sequence[Mapping[str, Any]]
) -> Commands:
    """The rules for one request."""
    home = Home(listed(messages), book.nouns)
    for message in messages:
        if message.get("role") in ("system", "developer"):
            found = _HERE.search(str(message.get("content") or ""))
            if found and (place := home.place(found[1].casefold().split())):
                home.here = place[0]
    return Commands(book, tools, home)


def answer_to_results(command: Command | None, messages: Sequence[Mapping[str, Any]]) -> str | None:
    """What the last calls gave, in words; None where the last message is no result."""
    results: list[str] = []
    for message in reversed(messages):
        if message.get("role") != "tool":
            break
        results.insert(0, str(message.get("content") or ""))
    return told(command, results) if results else None
