"""Turns the user's last message into calls of the client's tools, by rules alone.

    text -> words -> a rule whose sentence is the whole text -> targets from the client's list -> arguments

Actions come only from the user's last message, devices only from the system messages; output of tools
cannot cause a call. Where no sentence matches, nothing is called. Pure.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from edgeagent.routing.home_assistant.arguments import ArgumentMismatch, arguments_for
from edgeagent.routing.home_assistant.normalized_words import Words
from edgeagent.routing.home_assistant.rules import Rule, RuleBook
from edgeagent.routing.home_assistant.sentences import Phrase, Template
from edgeagent.routing.home_assistant.targets import AmbiguousTarget, Home, Target
from edgeagent.routing.home_assistant.value_parser import PATTERNS, READERS
from edgeagent.types.answer import CallText
from edgeagent.types.tools import Tool

# Commands are short; comparing a longer text would delay other requests.
MAX_CHARACTERS = 300
MAX_WORDS = 40
MAX_CALLS = 8
_NUMBERS = ("percent", "degrees", "bare_degrees")


@dataclass(frozen=True)
class Command:
    """The meaning of a text: `calls`, with the sentence for when they are `done`, or a `question` which of
    several devices is meant.

    `wanted` is the state that a question asks about, `topic` the subject of its answer.
    """

    calls: tuple[CallText, ...] = ()
    done: str = ""
    targets: tuple[Target, ...] = ()
    question: str | None = None
    wanted: str | None = None
    topic: str = ""


def plain_name(tool: str) -> str:
    """The name of a tool without the namespace that Home Assistant adds."""
    return tool.rpartition("__")[2]


@dataclass
class Commands:
    """The rules that apply to one request: its tools and its home."""

    book: RuleBook
    tools: Sequence[Tool]
    home: Home
    _offered: dict[str, Tool] = field(init=False)
    _rules: list[tuple[Rule, Tool]] = field(init=False)

    def __post_init__(self) -> None:
        self._offered = {plain_name(tool.name): tool for tool in self.tools}
        found = ((rule, self._tool(rule)) for rule in self.book.rules)
        self._rules = [(rule, tool) for rule, tool in found if tool is not None]

    def _tool(self, rule: Rule) -> Tool | None:
        names = (name for name in rule.text.tools if name in self._offered)
        name = next(names, None)
        return self._offered[name] if name is not None else None

    def read(self, text: str) -> Command | None:
        """The command of a text; None where its meaning is not certain."""
        if len(text) > MAX_CHARACTERS or len(Words.of(text).words) > MAX_WORDS:
            return None
        vocabulary = self.book.vocabulary | self.home.vocabulary()
        question = None
        for parts in _sentences(text):
            for said in (parts, [part.corrected(vocabulary) for part in parts]):
                command = self._all(said)
                if command is not None and command.calls:
                    return command
                question = question or command
        return question

    def of_intent(self, intent: str, text: str) -> Command | None:
        """The call for an intent that the assistant model is sure of; its values must be in the text."""
        words = Words.of(text)
        for rule, tool in self._rules:
            if intent in rule.text.intents:
                found = _search(rule.templates[0], words)
                if found is not None:
                    return self._filled(rule, tool, rule.templates[0], found, words)
        return None

    @property
    def intents(self) -> frozenset[str]:
        """The intents of an assistant model that map to one of the tools."""
        return frozenset(intent for rule, _ in self._rules for intent in rule.text.intents)

    # ---- one command

    def _one(self, words: Words) -> Command | None:
        question = None
        for said in self._variants(words):
            for rule, tool in self._rules:
                for template in rule.templates:
                    phrases = template.match(said)
                    if phrases is None:
                        continue
                    command = self._filled(rule, tool, template, phrases, said)
                    if command is not None and command.calls:
                        return command
                    question = question or command
        return question

    def _variants(self, words: Words) -> Iterator[Words]:
        """The text without what is said for politeness, and as it is."""
        bare = words
        while (shorter := self._shorter(bare)) is not bare:
            bare = shorter
        if bare.words:
            yield bare
        if bare is not words:
            yield words

    def _shorter(self, words: Words) -> Words:
        n = len(words.words)
        for first in range(min(6, n - 1), 0, -1):
            if any(one.match(words.cut(0, first)) is not None for one in self.book.before):
                return words.cut(first, n)
        for last in range(max(1, n - 4), n):
            if any(one.match(words.cut(last, n)) is not None for one in self.book.after):
                return words.cut(0, last)
        return words

    # ---- several commands in one text

    def _all(self, sentences: Sequence[Words]) -> Command | None:
        """Sentences that are commands, beside others that ask for nothing: all are understood, or none is."""
        is_one = len(sentences) == 1
        asking = [one for one in sentences if is_one or not self._is_idle(one)]
        found = []
        for one in asking:
            command = self._one(one)
            if command is None or not command.calls:
                command = self._several(one) or command
            if command is None or not command.calls:
                return command if len(asking) == 1 else None
            found.append(command)
        return _joined(found)

    def _is_idle(self, words: Words) -> bool:
        return not words.words or any(one.match(words) is not None for one in self.book.idle)

    def _several(self, words: Words) -> Command | None:
        """Commands joined by "and"."""
        cuts = [n for n, word in enumerate(words.words) if word in ("and", "then")]
        bounds = [-1, *cuts, len(words.words)]
        parts = [words.cut(a + 1, b) for a, b in itertools.pairwise(bounds) if b > a + 1]
        commands = [self._one(part) for part in parts] if len(parts) > 1 else []
        found = [one for one in commands if one is not None and one.calls]
        return _joined(found) if len(found) == len(commands) else None

    # ---- arguments

    def _filled(
        self,
        rule: Rule,
        tool: Tool,
        template: Template,
        phrases: Mapping[str, Phrase],
        words: Words,
    ) -> Command | None:
        """The calls of a sentence; None where a phrase of it means nothing here."""
        try:
            values, shown = self._values(template, phrases, words)
        except (ValueError, ArgumentMismatch):
            return None
        targets = self._targets(rule, template, phrases, words)
        if targets is None or isinstance(targets, AmbiguousTarget):
            return None if targets is None else _question(targets)
        calls = []
        try:
            for target in targets or (None,):
                said = _target_values(target, rule.text.target_as) if target is not None else {}
                arguments = arguments_for(
                    tool, {**said, **values, **rule.text.set}, rule.text.optional
                )
                calls.append(CallText(tool.name, arguments))
        except ArgumentMismatch:
            return None
        if len(calls) > MAX_CALLS:
            return None
        shown["target"] = " and ".join(map(spoken, targets))
        done = rule.text.done.format_map(_Shown(shown))
        return Command(
            tuple(calls), done, targets, wanted=values.get("state"), topic=rule.text.topic
        )

    def _values(
        self, template: Template, phrases: Mapping[str, Phrase], words: Words
    ) -> tuple[dict[str, Any], dict[str, str]]:
        """The arguments other than targets, and how each is told. Raises: ValueError, ArgumentMismatch."""
        values: dict[str, Any] = {}
        shown: dict[str, str] = {}
        for name, phrase in phrases.items():
            kind = template.kinds[name]
            if kind in ("target", "place"):
                continue
            said = words.cut(phrase.first, phrase.last)
            shown[name] = words.original(phrase.first, phrase.last)
            if kind == "duration":
                prefix = "start_" if name == "start" else ""
                parts = READERS[kind](said.line)
                values.update({f"{prefix}{part}": n for part, n in parts.items()})
            elif kind in _NUMBERS:
                values[name] = READERS[kind](said.line)
                shown[name] = f"{values[name]:g}"
            else:
                values[name] = self._phrase(kind, said, shown[name])
        return values, shown

    def _phrase(self, kind: str, said: Words, original: str) -> str:
        """Raises: ArgumentMismatch for a phrase that means nothing here."""
        if kind == "text":
            return original
        if kind == "command":
            command = self._one(said)
            if command is None or not command.calls:
                raise ArgumentMismatch(original)
            return original
        if kind == "area":
            area, _ = self.home.place(said.words) or (None, None)
            if area is None:
                raise ArgumentMismatch(original)
            return area
        return self.book.choices[kind][said.line.strip()]

    def _targets(
        self, rule: Rule, template: Template, phrases: Mapping[str, Phrase], words: Words
    ) -> tuple[Target, ...] | AmbiguousTarget | None:
        text = rule.text
        if "target" not in template.kinds:
            return self.home.only(text.default_domain) if text.default_domain else ()
        if "target" not in phrases:
            return ()
        spans = [phrases[slot] for slot in ("target", "place") if slot in phrases]
        said = [word for span in spans for word in words.words[span.first : span.last]]
        said = ["all", *said] if text.many else said
        found = self.home.target(said, text.domains, place_domain=text.place_domain)
        if found is not None or "and" not in said:
            return found
        every: list[Target] = []
        for part in " ".join(said).split(" and "):
            one = self.home.target(part.split(), text.domains, place_domain=text.place_domain)
            if one is None or isinstance(one, AmbiguousTarget):
                return one
            every += one
        return tuple(dict.fromkeys(every))


def _sentences(text: str) -> Iterator[list[Words]]:
    """The ways to cut a text: not at all, into sentences, and at commas too."""
    yield [Words.of(text)]
    for marks in (r"[.!?;\n]+(?:\s+|$)", r"(?:[.!?;,\n]+|\s[-–—])(?:\s+|$)"):
        parts = [part for part in re.split(marks, text) if part.strip()]
        if len(parts) > 1:
            yield [Words.of(part) for part in parts]


def _joined(commands: Sequence[Command]) -> Command | None:
    """Several commands as one."""
    calls = tuple(call for one in commands for call in one.calls)
    if len(commands) == 1:
        return commands[0]
    if not calls or len(calls) > MAX_CALLS:
        return None
    targets = tuple(target for one in commands for target in one.targets)
    return Command(calls, " ".join(one.done for one in commands), targets)


class _Shown(dict[str, str]):
    def __missing__(self, key: str) -> str:
        return ""


def _question(several: AmbiguousTarget) -> Command:
    names = list(several.names[:6])
    said = ", ".join(names[:-1]) + f" or {names[-1]}"
    return Command(question=f"Which one do you mean: {said}?")


def _target_values(target: Target, name: str) -> dict[str, Any]:
    """A target as arguments: what it does not tell is left out."""
    if name:
        return {name: target.name}
    values = {
        "name": target.name, "area": target.area, "floor": target.floor, "domain": list(target.domains),
    }  # fmt: skip
    return {key: value for key, value in values.items() if value}


def spoken(target: Target) -> str:
    """A target in words: "Kitchen Light", "the lights in Kitchen"."""
    if target.name is not None:
        return target.name
    kinds = " and ".join(f"{domain.replace('_', ' ')}s" for domain in target.domains)
    place = target.area or target.floor
    if place is None:
        return f"all {kinds}"
    return f"the {kinds} in {place}" if kinds else f"everything in {place}"


def _search(template: Template, words: Words) -> dict[str, Phrase] | None:
    """The slots of a sentence, looked for anywhere in a text: each must stand there exactly once."""
    phrases = {}
    for name, kind in template.kinds.items():
        if kind not in ("duration", *_NUMBERS):
            return None
        found = list(re.finditer(rf"(?:(?<=^)|(?<= )){PATTERNS[kind]}", words.line))
        if len(found) != 1:
            return None
        start, end = found[0].span()
        phrases[name] = Phrase(words.line.count(" ", 0, start), words.line.count(" ", 0, end))
    return phrases
