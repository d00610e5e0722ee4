"""Converts Gemma's notation of arguments into JSON while it is generated."""

from __future__ import annotations

import json
import re
from typing import NamedTuple

from edgeagent.engine.tool_syntax.call_stream import CallStream


class Notation(NamedTuple):
    """The markers around a call, and around a text within it."""

    opening: str
    closing: str
    quote: str


class NotationCalls(CallStream):
    """Reads `call:name{key:value}` with bare keys. JSON within it is taken as it is."""

    max_head = 256

    def __init__(self, notation: Notation) -> None:
        super().__init__(re.compile(re.escape(notation.opening) + r"call:(?P<name>[^\s{<]+)(?=\{)"))
        self._quote = notation.quote

    def _new_value(self) -> _Value:
        return _Value(self._quote)


class _Value:
    """One object of the notation, maybe incomplete."""

    def __init__(self, quote: str) -> None:
        self._quote = quote
        self._open: list[str] = []
        self._state = "value"  # or: key, text, json, bare
        self._is_escaped = False
        self.is_whole = False

    def take(self, text: str) -> tuple[int, str]:
        """How many characters were used, and the JSON that they are. The rest is to come again."""
        out: list[str] = []
        at = 0
        while at < len(text) and not self.is_whole:
            n = self._step(text[at:], out)
            if n == 0:
                break
            at += n
        return at, "".join(out)

    def _step(self, rest: str, out: list[str]) -> int:
        match self._state:
            case "text":
                return self._text(rest, out)
            case "json":
                return self._json(rest, out)
            case "key":
                return self._key(rest, out)
            case "bare":
                return self._bare(rest, out)
        if rest.startswith(self._quote):
            self._state = "text"
            out.append('"')
            return len(self._quote)
        if self._quote.startswith(rest):
            return 0
        return self._punctuation(rest[0], out)

    def _punctuation(self, character: str, out: list[str]) -> int:
        if character in "{[":
            self._open.append(character)
            out.append(character)
            self._state = "key" if character == "{" else "value"
        elif character == '"':
            out.append(character)
            self._state = "json"
        elif character in "}]":
            self._close(character, out)
        elif character == ",":
            out.append(character)
            self._state = "key" if self._open and self._open[-1] == "{" else "value"
        elif not character.isspace():
            out.append(character)
            self._state = "bare"
        return 1

    def _close(self, character: str, out: list[str]) -> None:
        if self._open:
            self._open.pop()
        out.append(character)
        self._state = "value"
        self.is_whole = not self._open

    def _text(self, rest: str, out: list[str]) -> int:
        end = rest.find(self._quote)
        if end == 0:
            out.append('"')
            self._state = "value"
            return len(self._quote)
        if end < 0:
            end = len(rest)
            for size in range(min(len(rest), len(self._quote) - 1), 0, -1):
                if rest.endswith(self._quote[:size]):
                    end -= size
                    break
        out.append(json.dumps(rest[:end], ensure_ascii=False)[1:-1])
        return end

    def _json(self, rest: str, out: list[str]) -> int:
        """Within a text that is JSON's own."""
        for i, character in enumerate(rest):
            if self._is_escaped:
                self._is_escaped = False
            elif character == "\\":
                self._is_escaped = True
            elif character == '"':
                out.append(rest[: i + 1])
                self._state = "value"
                return i + 1
        out.append(rest)
        return len(rest)

    def _key(self, rest: str, out: list[str]) -> int:
        """A whole key with its colon, or the end of an object."""
        if rest[0] == "}":
            self._close("}", out)
            return 1
        if rest[0] in " \n\t,":
            return 1
        if rest[0] == '"':
            found = re.match(r'"(?:[^"\\]|\\.)*"\s*:', rest, re.DOTALL)
            if found is None:
                return 0
            out.append(found[0])
            self._state = "value"
            return found.end()
        end = rest.find(":")
        if end < 0:
            return 0
        key = rest[:end].strip().removeprefix(self._quote).removesuffix(self._quote)
        out.append(json.dumps(key, ensure_ascii=False) + ":")
        self._state = "value"
        return end + 1

    def _bare(self, rest: str, out: list[str]) -> int:
        """A number, true, false or null."""
        for i, character in enumerate(rest):
            if character in ",}]" or character.isspace():
                if i:
                    out.append(rest[:i])
                self._state = "value"
                return i or self._step(rest, out)
        out.append(rest)
        return len(rest)
