"""Sentence templates, and the parts of a text that they match.

    (turn|switch) on {target}         one of several words, and a phrase
    [could you] set {target} to {brightness:percent}
    <turn> {target} off               a group of words that is defined elsewhere

A template matches a whole text or not at all. `{name:kind}` is parsed by `values`; `{target}` and
`{name:text}` are phrases.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property, lru_cache

from edgeagent.errors import SettingsError
from edgeagent.routing.home_assistant.normalized_words import Words
from edgeagent.routing.home_assistant.value_parser import PATTERNS

_PART = re.compile(
    r"\{([a-z_]+)(?::([a-z_]+))?\}|<([a-z_]+)>|([()\[\]|])|([^\s(){}<>|\[\]]+)|(\s+)|(.)"
)
PHRASE = r"(?:\S+ )+?"


@dataclass(frozen=True)
class Phrase:
    """A part of a text, by the indexes of its words."""

    first: int
    last: int


@dataclass(frozen=True, eq=False)
class Template:
    """One sentence. `kinds` has the kind of each slot, `needed` the words that every match contains."""

    text: str
    kinds: Mapping[str, str]
    needed: frozenset[str]
    groups: Mapping[str, str] = field(repr=False)
    patterns: Mapping[str, str] = field(repr=False)

    @classmethod
    def of(
        cls, text: str, groups: Mapping[str, str], patterns: Mapping[str, str] = PATTERNS
    ) -> Template:
        kinds = {slot: kind or "target" for slot, kind, *_ in _PART.findall(text) if slot}
        return cls(text, kinds, frozenset(_needed(text)), groups, patterns)

    @cached_property
    def expression(self) -> re.Pattern[str]:
        """Compiled when it is first needed. Raises: SettingsError for a template that cannot be read."""
        try:
            return re.compile("".join(_compiled(self.text, self.groups, self.patterns)))
        except (re.error, KeyError) as exc:
            raise SettingsError(
                f"The sentence {self.text!r} of an assistant's tools cannot be read ({exc}): close its "
                "brackets, and use the kinds of slots that the shipped mapping explains."
            ) from exc

    @property
    def words(self) -> frozenset[str]:
        """The words that it may have."""
        return frozenset(re.findall(r"[a-z]{2,}", re.sub(r"\{[^}]*\}|<[^>]*>", " ", self.text)))

    def match(self, words: Words) -> dict[str, Phrase] | None:
        """The phrase of each slot, or None."""
        if not self.needed.issubset(words.words):
            return None
        line = words.line
        found = self.expression.fullmatch(line)
        if found is None:
            return None
        return {
            name: Phrase(line.count(" ", 0, found.start(name)), line.count(" ", 0, found.end(name)))
            for name in self.kinds
            if found[name]
        }


def _needed(text: str) -> Iterator[str]:
    """The words that stand outside of all brackets."""
    depth = 0
    for _, _, _, sign, word, _, _ in _PART.findall(text):
        depth += {"(": 1, "[": 1, ")": -1, "]": -1}.get(sign, 0)
        if word and depth == 0:
            yield _plain(word)


@lru_cache(maxsize=4096)
def _plain(word: str) -> str:
    """A word as texts have it: numbers in digits."""
    return next(iter(Words.of(word).words), word)


def _compiled(text: str, groups: Mapping[str, str], patterns: Mapping[str, str]) -> Iterator[str]:
    for slot, kind, group, sign, word, _, odd in _PART.findall(text):
        if slot:
            yield f"(?P<{slot}>{patterns[kind] if kind else PHRASE})"
        elif group:
            yield "(?:" + "".join(_compiled(groups[group], groups, patterns)) + ")"
        elif sign:
            yield {"(": "(?:", "[": "(?:", "]": ")?"}.get(sign, sign)
        elif word:
            yield re.escape(_plain(word)) + " "
        elif odd:
            raise KeyError(odd)
