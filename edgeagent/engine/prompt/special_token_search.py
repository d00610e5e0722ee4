"""Finds the special tokens of a vocabulary in a template's text by their names.

llama.cpp splits a text at every name of a special token, the longest names first, and tokenizes the parts
between them. This module does the same, so that it can be done for some parts of a text only.
"""

from __future__ import annotations

import re
from array import array
from collections.abc import Iterable, Iterator
from typing import NamedTuple, Protocol

# llama.h: enum llama_token_attr.
UNKNOWN, CONTROL, USER_DEFINED = 1, 1 << 3, 1 << 4
LSTRIP, RSTRIP = 1 << 7, 1 << 8
# User-defined tokens that are markup in every vocabulary that has them, whatever its template says.
MARKUP = frozenset({
    "<think>", "</think>", "[THINK]", "[/THINK]", "<tool_call>", "</tool_call>", "<tool_response>",
    "</tool_response>", "<start_of_turn>", "<end_of_turn>", "<start_function_call>",
    "<end_function_call>", "<start_function_response>", "<end_function_response>",
    "<start_function_declaration>", "<end_function_declaration>", "<escape>",
})  # fmt: skip
_LOOKS_SPECIAL = re.compile(r"<\|.+\|>|<｜.+｜>|<\|.+>|<.+\|>")
# Markers that a template writes although its vocabulary has no tokens for them.
_WRITTEN = re.compile(r"<\|[a-z_]{1,32}\|>|\[/?[A-Z_]{2,32}\]|<</?SYS>>")
_WHITE = " \t\n\r\v\f"  # what C's isspace takes


class SpecialToken(NamedTuple):
    """A token, and whether it removes the white space before and after it."""

    token: int
    strips_left: bool = False
    strips_right: bool = False


class SpecialTokenSpan(NamedTuple):
    """A special token that stands at [start, end) of a text."""

    start: int
    end: int
    special: SpecialToken


class Tokenizer(Protocol):
    """What is needed of a vocabulary. `attributes` are those of llama.h."""

    n_vocab: int

    def attributes(self, token: int) -> int: ...

    def text_of(self, token: int) -> str: ...

    def tokens_of(self, text: str, *, add_special: bool, parse_special: bool) -> array[int]: ...

    def piece(self, token: int) -> bytes: ...


class SpecialTokens:
    """The special tokens of one vocabulary. Immutable; for any thread.

    `by_name` are the tokens that a template may write. `inert` are names that the tokenizer turns into tokens
    even when it does not parse special tokens, or that a template writes as plain text: in texts of clients
    they must be spelled with several tokens.
    """

    def __init__(self, by_name: dict[str, SpecialToken], inert: Iterable[str] = ()) -> None:
        self.by_name = by_name
        self.inert = frozenset(inert)
        # The first sign in a name that is neither letter nor space: where that one is not a content's, no
        # part of the name can be.
        self.signs = frozenset(filter(None, map(_sign, self.names)))
        self.words = frozenset(name for name in self.names if _sign(name) is None)
        self.strips_left = any(special.strips_left for special in by_name.values())
        self.strips_right = any(special.strips_right for special in by_name.values())
        self._lengths: dict[str, list[int]] = {}
        for first, length in {(name[0], len(name)) for name in by_name}:
            self._lengths.setdefault(first, []).append(length)
        for lengths in self._lengths.values():
            lengths.sort(reverse=True)
        self._first = re.compile(f"[{re.escape(''.join(self._lengths))}]") if by_name else None

    @property
    def names(self) -> frozenset[str]:
        return self.inert.union(self.by_name)

    @classmethod
    def of(cls, tokenizer: Tokenizer, template: str) -> SpecialTokens:
        """The tokens of a vocabulary that are markup. Takes 15 ms for 49,152 tokens."""
        by_name: dict[str, SpecialToken] = {}
        inert: set[str] = set()
        for token in range(tokenizer.n_vocab):
            attributes = tokenizer.attributes(token)
            if not attributes & (UNKNOWN | CONTROL | USER_DEFINED):
                continue
            name = tokenizer.text_of(token)
            if not name.strip():
                continue
            if not attributes & (UNKNOWN | CONTROL):
                if not _is_markup(name, template):
                    continue  # a run of spaces, an HTML tag: text like any other
                inert.add(name)
            by_name[name] = SpecialToken(
                token, bool(attributes & LSTRIP), bool(attributes & RSTRIP)
            )
        written = {name for name in _WRITTEN.findall(template) if name not in by_name}
        return cls(by_name, inert | written)

    def find(self, text: str) -> Iterator[SpecialTokenSpan]:
        """The special tokens that a text names, first to last; of overlapping names the longest."""
        if self._first is None:
            return
        found = [
            (-length, match.start())
            for match in self._first.finditer(text)
            for length in self._lengths[match.group()]
            if text[match.start() : match.start() + length] in self.by_name
        ]
        if not found:
            return
        places: list[tuple[int, int]] = []
        taken = bytearray(len(text))
        for length, start in sorted(found):
            end = start - length
            if not any(taken[start:end]):
                taken[start:end] = b"\1" * (end - start)
                places.append((start, end))
        for start, end in sorted(places):
            yield SpecialTokenSpan(start, end, self.by_name[text[start:end]])

    def pieces(self, text: str) -> Iterator[str | int]:
        """A template's text cut at the special tokens in it: the texts between them, and the tokens."""
        at = 0
        strips = False
        for start, end, special in self.find(text):
            between = text[at:start]
            if strips:
                between = between.lstrip(_WHITE)
            if special.strips_left:
                between = between.rstrip(_WHITE)
            if between:
                yield between
            yield special.token
            at, strips = end, special.strips_right
        rest = text[at:].lstrip(_WHITE) if strips else text[at:]
        if rest:
            yield rest


def _sign(name: str) -> str | None:
    return next((c for c in name if not c.isalnum() and not c.isspace()), None)


def _is_markup(name: str, template: str) -> bool:
    """Whether a user-defined token marks the structure of a dialogue."""
    return name in MARKUP or name in template or _LOOKS_SPECIAL.fullmatch(name) is not None
