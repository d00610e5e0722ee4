"""Slots that are found in a message by the lists and shapes of a bot's file. Pure.

A value is found as whole words, whatever its case and marks; a shape has `#` for a digit and other characters
as they are. No pattern of anybody is compiled.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import msgspec

from edgeagent.knowledge.questions import question_key

MAX_SHAPE = 64  # characters


class SlotRule(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`values`: each with its other names. `shapes` such as `SK######`. `intents`: those that have the slot;
    empty: all."""

    values: dict[str, list[str]] = {}
    shapes: list[str] = []
    intents: list[str] = []

    @property
    def fault(self) -> str | None:
        """What is wrong with it, in words that follow its name."""
        if not self.values and not self.shapes:
            return "which has neither values nor shapes"
        if any(not question_key(value) for value in self.values):
            return "of which a value has no letter"
        bad = [shape for shape in self.shapes if "#" not in shape or len(shape) > MAX_SHAPE]
        return (
            f"whose shape {bad[0][:MAX_SHAPE]!r} has no # for a digit, or is long" if bad else None
        )


def slots_of(rules: Mapping[str, SlotRule], intent: str, text: str) -> dict[str, str]:
    """The first value of each slot of an intent in a message."""
    said = f" {question_key(text)} "
    found = {}
    for name, rule in rules.items():
        if rule.intents and intent not in rule.intents:
            continue
        value = _listed(rule.values, said) or _shaped(rule.shapes, text)
        if value is not None:
            found[name] = value
    return found


def _listed(values: Mapping[str, list[str]], said: str) -> str | None:
    """The value that comes first in what was said; of several at one place the longest."""
    places = []
    for value, others in values.items():
        for name in (value, *others):
            key = question_key(name)
            place = said.find(f" {key} ") if key else -1
            if place >= 0:
                places.append((place, -len(key), value))
    return min(places)[2] if places else None


def _shaped(shapes: list[str], text: str) -> str | None:
    for shape in shapes:
        pattern = "".join("[0-9]" if char == "#" else re.escape(char) for char in shape)
        match = re.search(rf"(?<!\w){pattern}(?!\w)", text, re.IGNORECASE)
        if match is not None:
            return match[0].upper()
    return None
