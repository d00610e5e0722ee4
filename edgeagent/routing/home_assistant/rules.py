"""The mapping file of clients' tools: which sentences call which tool.

`home_assistant.toml` beside this module is the shipped mapping and explains the format.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import msgspec

from edgeagent.errors import SettingsError
from edgeagent.routing import SHIPPED_RULES
from edgeagent.routing.home_assistant.normalized_words import stems
from edgeagent.routing.home_assistant.sentences import Template
from edgeagent.routing.home_assistant.targets import Noun
from edgeagent.routing.home_assistant.value_parser import PATTERNS

# Kinds of slots whose phrases are resolved by a module of their own.
_PHRASES = {
    "command": PATTERNS["text"],
    "area": PATTERNS["text"],
    "place": rf"(?:in|inside|at|for|over in|of) {PATTERNS['text']}",
}


class RuleText(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One rule as written in the file."""

    tools: list[str]
    sentences: list[str]
    domains: list[str] = []
    place_domain: str = ""
    default_domain: str = ""
    target_as: str = ""
    set: dict[str, Any] = {}
    optional: list[str] = []
    intents: list[str] = []
    many: bool = False
    done: str = ""
    topic: str = ""


class NounText(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The nouns of one domain."""

    common: list[str] = []
    other: list[str] = []
    named: list[str] = []


class MapText(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A mapping file."""

    rules: list[RuleText]
    before: list[str] = []
    after: list[str] = []
    idle: list[str] = []
    words: dict[str, str] = {}
    choices: dict[str, list[str]] = {}
    nouns: dict[str, NounText] = {}


@dataclass(frozen=True)
class Rule:
    """One rule, ready to be matched."""

    text: RuleText
    templates: Sequence[Template]


@dataclass(frozen=True)
class RuleBook:
    """All rules of a file. `choices` maps words to values by kind, `vocabulary` has the words of all
    sentences."""

    rules: Sequence[Rule]
    before: Sequence[Template]
    after: Sequence[Template]
    idle: Sequence[Template]
    choices: Mapping[str, Mapping[str, str]]
    nouns: Mapping[tuple[str, ...], Sequence[Noun]]
    vocabulary: frozenset[str]

    @property
    def tools(self) -> frozenset[str]:
        return frozenset(tool for rule in self.rules for tool in rule.text.tools)


@lru_cache(maxsize=4)
def read_rules(path: Path) -> RuleBook:
    """Raises: SettingsError for a file that cannot be read or is no mapping of tools."""
    try:
        text = msgspec.convert(tomllib.loads(path.read_text(encoding="utf-8")), MapText)
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, msgspec.ValidationError) as exc:
        raise SettingsError(
            f"{path} is not a mapping of an assistant's tools ({exc}): correct it, or leave "
            "`assistant_tools` out."
        ) from exc
    book = _book(text)
    if path != SHIPPED_RULES:  # sentences are compiled when they are needed
        for template in (
            *book.before,
            *book.after,
            *book.idle,
            *(t for r in book.rules for t in r.templates),
        ):
            template.expression  # noqa: B018
    return book


def _book(text: MapText) -> RuleBook:
    choices = {kind: _choices(words) for kind, words in text.choices.items()}
    patterns = {
        **PATTERNS,
        **_PHRASES,
        **{
            kind: "(?:"
            + "|".join(f"{word} " for word in sorted(words, key=len, reverse=True))
            + ")"
            for kind, words in choices.items()
        },
    }

    def templates(sentences: Sequence[str]) -> list[Template]:
        return [Template.of(sentence, text.words, patterns) for sentence in sentences]

    rules = [Rule(rule, templates(rule.sentences)) for rule in text.rules]
    nouns = _nouns(text.nouns)
    words = {word for rule in rules for template in rule.templates for word in template.words}
    words |= {
        word for group in text.words.values() for word in Template.of(group, text.words).words
    }
    words |= {word for noun in nouns for word in noun}
    words |= {word for kinds in choices.values() for choice in kinds for word in choice.split()}
    before, after, idle = map(templates, (text.before, text.after, text.idle))
    return RuleBook(rules, before, after, idle, choices, nouns, frozenset(words))


def _choices(words: Sequence[str]) -> dict[str, str]:
    pairs = (word.partition("=") for word in words)
    return {said: value or said for said, _, value in pairs}


def _nouns(texts: Mapping[str, NounText]) -> dict[tuple[str, ...], list[Noun]]:
    found: dict[tuple[str, ...], list[Noun]] = {}
    for domain, text in texts.items():
        for words, noun in (
            (text.common, Noun(domain, is_common=True)),
            (text.other, Noun(domain)),
            (text.named, Noun(domain, needs_name=True)),
        ):
            for word in words:
                found.setdefault(stems(word.split()), []).append(noun)
    return found
