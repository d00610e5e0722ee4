"""What one way to write tool calls consists of: its opening, its grammar, its reader, its words.

A call is written by a model as its training has it, between markers or as a bare JSON object. A family
knows how to find the opening of a call in free text, what may follow it (a Lark grammar in which the
arguments are held to the tool's own schema), and how to take the calls out of what was written.
Pure functions over plain values; no library.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection
from typing import Any, ClassVar, NamedTuple, Protocol

from edgeagent.types.answer import CallDelta

# A small model that may call again now and then does nothing else.
MAX_CALLS = 8

# How a marker stands in a grammar: by its token, where the vocabulary has one, or as text.
Mark = Callable[[str], str]


class JsonStyle(NamedTuple):
    """What stands between items, and between a key and its value."""

    item: str = ", "
    key: str = ": "

    def dump(self, value: Any) -> str:
        return json.dumps(value, separators=(self.item, self.key), ensure_ascii=False)


class Function(NamedTuple):
    """A tool as grammars need it: `schema` is what its arguments are held to."""

    name: str
    schema: dict[str, Any]


class CallOpening(NamedTuple):
    """Where a call may begin in a text. From `start` on the text is to be held back; the opening ends
    at `end`, None while it is not whole. `head` is the opening as the grammar has it."""

    start: int
    end: int | None = None
    head: str = ""


class CallReader(Protocol):
    """Takes calls out of what a model writes, piece by piece. What is no call is passed over."""

    def feed(self, text: str) -> list[CallDelta]: ...

    def finished(self) -> list[tuple[str, str]]:
        """Name and arguments of the calls that came to their end since the last time."""
        ...


class Family(ABC):
    """One call syntax. Instances have no state."""

    name: ClassVar[str]
    style: ClassVar[JsonStyle] = JsonStyle()
    max_calls: ClassVar[int] = MAX_CALLS
    # Texts that are special tokens in the vocabularies of this family's models.
    markers: ClassVar[tuple[str, ...]] = ()

    @abstractmethod
    def writes(self, sample: str) -> bool:
        """Whether a template writes calls so: `sample` is a past call as it renders it, or where it
        renders none, its source."""

    @abstractmethod
    def find(self, text: str, names: Collection[str], *, is_first: bool) -> CallOpening | None:
        """The first place where a call of one of the tools begins, or may yet turn out to. `is_first`:
        the answer had no text before this one."""

    @abstractmethod
    def grammar(
        self,
        functions: list[Function],
        n_calls: int,
        mark: Mark,
        style: Any,
        *,
        is_mixed: bool = False,
    ) -> str:
        """A Lark rule `calls` of one to `n_calls` calls, and those it needs. `style` is for llguidance's
        JSON; `is_mixed` where any JSON may stand in place of the calls."""

    @abstractmethod
    def reader(self) -> CallReader: ...

    @abstractmethod
    def call_text(self, name: str, arguments: dict[str, Any]) -> str:
        """A past call, for templates that cannot render one."""


def quoted(text: str) -> str:
    """A text as Lark writes it."""
    return json.dumps(text)


def json_rule(schema: dict[str, Any], style: Any) -> str:
    """A JSON value by its schema, within a Lark grammar."""
    return "%json " + json.dumps({"x-guidance": style} | schema)


def find_marker(text: str, marker: str, head: str | None = None) -> CallOpening | None:
    """Where a marker stands, or begins at the end of the text."""
    at = text.find(marker)
    if at >= 0:
        return CallOpening(at, at + len(marker), marker if head is None else head)
    for size in range(min(len(text), len(marker) - 1), 0, -1):
        if text.endswith(marker[:size]):
            return CallOpening(len(text) - size)
    return None
