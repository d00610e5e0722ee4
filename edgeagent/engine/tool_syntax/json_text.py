"""Finds calls in JSON within a text that is being generated: where one begins and where its arguments end."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable
from typing import NamedTuple

from edgeagent.engine.tool_syntax.call_stream import CallStream
from edgeagent.engine.tool_syntax.tool_syntax import CallOpening

_WHITE = " \t\r\n"
_FENCE = re.compile(r"```[a-z_]*\s*")
_OPENING = ("{", '"name"', ":", '"')
# No name is longer; after more white space there is no call.
MAX_OPENING = 128


def find_object(
    text: str, names: Collection[str], *, is_first: bool, key: str = ":"
) -> CallOpening | None:
    """Where a call begins that is a JSON object with its name first, in a code fence or bare.

    What an answer begins with is one as soon as it has `{"name":"`; within a text the whole name of a
    tool must follow, since a text may well hold other objects with a name.
    """
    for at in _candidates(text):
        opening = _opening(text, at)
        if opening.is_partial:
            return CallOpening(at)
        if opening.end is None:
            continue
        if is_first and not text[:at].strip():
            return CallOpening(at, opening.end, f'{{"name"{key}"')
        close = text.find('"', opening.end)
        if close < 0:
            begun = text[opening.end :]
            if any(name.startswith(begun) for name in names):
                return CallOpening(at)
        elif text[opening.end : close] in names:
            return CallOpening(at, close + 1, f'{{"name"{key}"{text[opening.end : close]}"')
    return None


def _candidates(text: str) -> Iterable[int]:
    """Where a brace stands, or a fence that may stand before one."""
    at = 0
    while at < len(text):
        if text[at] == "{":
            yield at
        elif text[at] == "`":
            yield at
            at += len(text[at:]) - len(text[at:].lstrip("`")) - 1
        at += 1


class _Opening(NamedTuple):
    """`end` is where the name begins; None where this is no opening, or not yet (`is_partial`)."""

    end: int | None = None
    is_partial: bool = False


def _opening(text: str, at: int) -> _Opening:
    start = at
    if text[at] == "`":
        if "```".startswith(text[at:]):
            return _Opening(is_partial=True)
        fence = _FENCE.match(text, at)
        if fence is None:
            return _Opening()
        at = fence.end()
    for part in _OPENING:
        while part != "{" and at < len(text) and text[at] in _WHITE:
            at += 1
        if at - start > MAX_OPENING:
            return _Opening()
        begun = text[at : at + len(part)]
        if begun != part:
            return _Opening(is_partial=at + len(begun) == len(text) and part.startswith(begun))
        at += len(part)
    return _Opening(at)


class ValueEnd:
    """Finds the end of one JSON object or array that comes in pieces."""

    def __init__(self) -> None:
        self._depth = 0
        self._is_text = False
        self._is_escaped = False

    def take(self, text: str) -> tuple[int, str]:
        """How many characters belong to the value, and these characters; fewer than there are once it is
        whole."""
        n = self._n_own(text)
        return n, text[:n]

    def _n_own(self, text: str) -> int:
        for i, character in enumerate(text):
            if self._is_text:
                if self._is_escaped:
                    self._is_escaped = False
                elif character == "\\":
                    self._is_escaped = True
                elif character == '"':
                    self._is_text = False
            elif character == '"':
                self._is_text = True
            elif character in "{[":
                self._depth += 1
            elif character in "}]":
                self._depth -= 1
                if self._depth <= 0:
                    return i + 1
        return len(text)

    @property
    def is_whole(self) -> bool:
        return self._depth <= 0


class JsonCalls(CallStream):
    """Reads calls whose arguments are JSON."""

    max_head = 1024

    def _new_value(self) -> ValueEnd:
        return ValueEnd()

    def _name_of(self, written: str) -> str:
        return _plain(written)


def _plain(name: str) -> str:
    """A name as JSON spells it, without its escapes."""
    try:
        return str(json.loads(f'"{name}"'))
    except ValueError:
        return name
