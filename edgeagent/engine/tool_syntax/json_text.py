"""Finds calls in JSON within a text that is being generated: where one begins and where its arguments end."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable
from typing import NamedTuple

from edgeagent.engine.tool_syntax.tool_syntax import CallOpening
from edgeagent.types.answer import CallDelta

_WHITE = " \t\r\n"
_FENCE = re.compile(r"```[a-z_]*\s*")
_OPENING = ("{", '"name"', ":", '"')
# No name is longer; after more white space there is no call.
MAX_OPENING = 128
MAX_HEAD = 1024


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

    def take(self, text: str) -> int:
        """How many characters belong to the value; fewer than there are once it is whole."""
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


class JsonCalls:
    """Reads calls whose arguments are JSON: `head` matches what stands before them, with the name in
    its group `name`."""

    def __init__(self, head: re.Pattern[str]) -> None:
        self._head = head
        self._held = ""
        self._n_calls = 0
        self._name = ""
        self._value: ValueEnd | None = None
        self._arguments: list[str] = []
        self._finished: list[tuple[str, str]] = []

    def feed(self, text: str) -> list[CallDelta]:
        self._held += text
        out: list[CallDelta] = []
        while self._held:
            if self._value is None:
                head = self._head.search(self._held)
                if head is None:
                    self._held = self._held[-MAX_HEAD:]
                    break
                self._held = self._held[head.end() :]
                self._name = _plain(head["name"])
                self._value = ValueEnd()
                out.append(CallDelta(self._n_calls, "", self._name))
            self._take(out)
        return out

    def _take(self, out: list[CallDelta]) -> None:
        assert self._value is not None
        n = self._value.take(self._held)
        piece, self._held = self._held[:n], self._held[n:]
        if piece:
            self._arguments.append(piece)
            out.append(CallDelta(self._n_calls, piece))
        if self._value.is_whole:
            self._finished.append((self._name, "".join(self._arguments)))
            self._arguments = []
            self._value = None
            self._n_calls += 1

    def finished(self) -> list[tuple[str, str]]:
        out, self._finished = self._finished, []
        return out


def _plain(name: str) -> str:
    """A name as JSON spells it, without its escapes."""
    try:
        return str(json.loads(f'"{name}"'))
    except ValueError:
        return name
