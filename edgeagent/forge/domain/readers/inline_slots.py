"""Slots that are marked in a text.

    book a table for [two](party_size)
    book a table for [two]{"entity": "party_size"}

Brackets without a name behind them are text.
"""

from __future__ import annotations

import json
import re

from edgeagent.errors import ForgeFailed
from edgeagent.forge.datasets import Slot
from edgeagent.forge.domain.example import Domain, Place, slot_name

_MARK = re.compile(
    r"\[(?P<value>[^\[\]]+)\](?:\((?P<name>[^()\s:]+)(?::[^()]*)?\)|(?P<body>\{[^{}]*\}))"
)


def add_marked(domain: Domain, marked: str, intent: str, place: Place) -> None:
    """Add a text with marks. Raises: ForgeFailed."""
    text, slots = unmarked(marked, place)
    domain.add(text, intent, place, slots)


def unmarked(marked: str, place: Place) -> tuple[str, list[Slot]]:
    """The text without marks, and the slots. Raises: ForgeFailed."""
    text, slots, at = "", [], 0
    for found in _MARK.finditer(marked):
        text += marked[at : found.start()]
        at = found.end()
        value = found["value"]
        name = slot_name(found["name"] or _entity(found["body"], place), place)
        start = len(text) + len(value) - len(value.lstrip())
        text += value
        if value.strip():
            slots.append(Slot(name, value.strip(), start, start + len(value.strip())))
    return text + marked[at:], slots


def _entity(body: str, place: Place) -> str:
    try:
        name = json.loads(body)["entity"]
    except (ValueError, KeyError, TypeError):
        name = None
    if not isinstance(name, str):
        raise ForgeFailed(
            f'{place}: {body[:80]} does not name a slot: write {{"entity": "NAME"}}, or (NAME).'
        )
    return name
