"""Reads sentence files of Home Assistant: templates with `(a|b)`, `[optional]`, `{list:slot}`, `<rule>`.

Hassil parses the templates; sentences are drawn from them at random by a fixed seed, since a template may
stand for millions. Values of lists become slots. A list without values (a wildcard, or names that Home
Assistant fills in) needs values in `lists` of one of the files.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from edgeagent.errors import ForgeFailed
from edgeagent.forge.datasets import Slot
from edgeagent.forge.domain.example import Domain, Place, slot_name
from edgeagent.forge.domain.readers.yaml_document import Node

SENTENCES_PER_INTENT = 100
_TRIES = 6  # draws for each new sentence
_MAX_DEPTH = 24
_MAX_RANGE = 200


@dataclass
class Templates:
    """What the files of a directory have: rules and lists are common to all."""

    sentences: dict[str, list[Node]] = field(default_factory=dict)
    rules: dict[str, Node] = field(default_factory=dict)
    lists: dict[str, list[str]] = field(default_factory=dict)

    def take(self, root: Node) -> None:
        """Raises: ForgeFailed."""
        intents = root.get("intents")
        for intent, body in ((intents.keys or {}) if intents is not None else {}).items():
            data = body.get("data")
            for block in (data.items or ()) if data is not None else ():
                sentences = block.get("sentences")
                if sentences is not None:
                    said = [node for node in sentences.texts() if (node.text or "").strip()]
                    self.sentences.setdefault(intent, []).extend(said)
                for name, rule in _keys(block.get("expansion_rules")).items():
                    self.rules.setdefault(name, rule)
                for name, values in _keys(block.get("lists")).items():
                    self.lists[name] = _values(values)
        for name, rule in _keys(root.get("expansion_rules")).items():
            self.rules[name] = rule
        for name, values in _keys(root.get("lists")).items():
            self.lists[name] = _values(values)


def is_home_assistant(root: Node) -> bool:
    return any(root.get(key) is not None for key in ("intents", "lists", "expansion_rules"))


def draw(templates: Templates, seed: int, n_most: int = SENTENCES_PER_INTENT) -> Domain:
    """At most `n_most` different sentences of each intent. Raises: ForgeFailed, also without hassil."""
    try:
        from hassil.parse_expression import parse_sentence
    except ImportError as exc:
        raise ForgeFailed(
            "Sentence files of Home Assistant need hassil: run pip install 'edgeagent[intents]'."
        ) from exc
    domain = Domain()
    parsed: dict[int, Any] = {}

    def parse(node: Node) -> Any:
        if id(node) not in parsed:
            try:
                parsed[id(node)] = parse_sentence(node.text or "").expression
            except Exception as exc:  # hassil raises several kinds for a wrong template
                said = str(exc).splitlines()[0][:120]
                raise node.error(
                    f"not a sentence template ({said}): correct the brackets."
                ) from exc
        return parsed[id(node)]

    for intent, nodes in sorted(templates.sentences.items()):
        if not nodes:
            continue
        rng = random.Random(f"{seed}/{intent}")
        seen: set[str] = set()
        # The sentences of each template first, so that every one is there.
        for turn in range(_TRIES * max(1, n_most // len(nodes) + 1)):
            for node in nodes:
                if len(seen) >= n_most:
                    break
                drawing = _Drawing(node, templates, rng, parse)
                drawing.say(parse(node), 0)
                text, slots = drawing.finished()
                if text and text.lower() not in seen:
                    seen.add(text.lower())
                    domain.add(text, intent, Place(node.path, node.line), slots)
            if len(seen) >= n_most or (turn > 20 and len(seen) < turn // 4):
                break
    return domain


class _Drawing:
    """One sentence of a template, drawn from left to right."""

    def __init__(self, node: Node, templates: Templates, rng: random.Random, parse: Any) -> None:
        self._node, self._templates, self._rng, self._parse = node, templates, rng, parse
        self._parts: list[tuple[str, str | None]] = []

    def say(self, expression: Any, depth: int) -> None:
        from hassil.expression import (
            Alternative,
            Group,
            ListReference,
            Permutation,
            RuleReference,
            TextChunk,
        )

        if depth > _MAX_DEPTH:
            raise self._node.error("its rules refer to each other without an end: correct them.")
        if isinstance(expression, TextChunk):
            self._parts.append((expression.original_text, None))
        elif isinstance(expression, Alternative):
            self.say(self._rng.choice(expression.items), depth + 1)
        elif isinstance(expression, Permutation):
            for item in self._rng.sample(expression.items, len(expression.items)):
                self.say(item, depth + 1)
        elif isinstance(expression, Group):
            for item in expression.items:
                self.say(item, depth + 1)
        elif isinstance(expression, RuleReference):
            rule = self._templates.rules.get(expression.rule_name)
            if rule is None:
                raise self._node.error(
                    f"there is no rule <{expression.rule_name}>: add it to `expansion_rules`."
                )
            self.say(self._parse(rule), depth + 1)
        elif isinstance(expression, ListReference):
            values = self._templates.lists.get(expression.list_name)
            if not values:
                raise self._node.error(
                    f"the list {{{expression.list_name}}} has no values: add some to `lists`."
                )
            self._parts.append((self._rng.choice(values), expression.slot_name))

    def finished(self) -> tuple[str, list[Slot]]:
        """The text with single spaces, and its slots."""
        text, slots = "", []
        place = Place(self._node.path, self._node.line)
        for part, slot in self._parts:
            words = " ".join(part.split())
            if (part[:1].isspace() or not words) and text and not text.endswith(" "):
                text += " " if part else ""
            start = len(text)
            text += words
            if slot is not None and words:
                slots.append(Slot(slot_name(slot, place), words, start, len(text)))
            if part[-1:].isspace() and not text.endswith(" "):
                text += " "
        return text.lstrip().rstrip(), slots if not text[:1].isspace() else []


def _keys(node: Node | None) -> Mapping[str, Node]:
    return (node.keys or {}) if node is not None else {}


def _values(node: Node) -> list[str]:
    """The values of a list: `values` (texts, or `in`), or a `range`."""
    span = node.get("range")
    if span is not None:
        ends = [_keys(span).get(key) for key in ("from", "to", "step")]
        try:
            low, high, step = (int(end.text or "") if end is not None else 1 for end in ends)
        except ValueError as exc:
            raise span.error("a range needs numbers as `from` and `to`: add them.") from exc
        return [str(n) for n in range(low, high + 1, max(1, step))][:_MAX_RANGE]
    values = node.get("values") or (node if node.items is not None else None)
    found = []
    for item in (values.items or ()) if values is not None else ():
        text = item.text if item.text is not None else None
        said = item.get("in")
        if text is None and said is not None:
            text = said.text
        if text is not None:
            found += _alternatives(text)
    return found


def _alternatives(text: str) -> list[str]:
    """The plain forms of a value, which may be a small template itself."""
    if not any(sign in text for sign in "([<{|"):
        return [text.strip()]
    from hassil.parse_expression import parse_sentence
    from hassil.sample import sample_sentence

    try:
        forms = sample_sentence(parse_sentence(text))
        return list(
            dict.fromkeys(" ".join(form.split()) for _, form in zip(range(8), forms, strict=False))
        )
    except Exception:  # a value with rules of its own: its text cannot be said
        return []
