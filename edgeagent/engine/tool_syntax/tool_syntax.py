"""The parts of a syntax for tool calls: its opening, its grammar, its reader, its instructions.

A model writes calls as it was trained to, between markers or as a bare JSON object. A family finds the
opening of a call in free text, gives the grammar of what may follow (a Lark grammar that holds the
arguments to the schema of the tool), and reads the calls from the text.
Pure functions over plain values.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection
from typing import Any, ClassVar, NamedTuple, Protocol

from edgeagent.types.answer import CallDelta

# A small model that may always call again sometimes never stops calling.
MAX_CALLS = 8

# A marker in a grammar: its special token, if the vocabulary has one, or its text.
Mark = Callable[[str], str]


class JsonStyle(NamedTuple):
    """The separators between items, and between a key and its value."""

    item: str = ", "
    key: str = ": "

    def dump(self, value: Any) -> str:
        return json.dumps(value, separators=(self.item, self.key), ensure_ascii=False)


class Function(NamedTuple):
    """A tool as grammars need it: `schema` is what its arguments are held to."""

    name: str
    schema: dict[str, Any]


class CallOpening(NamedTuple):
    """Where a call may begin in a text. The text from `start` on must be held back; the opening ends at
    `end`, or is incomplete (None). `head` is the opening as the grammar writes it."""

    start: int
    end: int | None = None
    head: str = ""


class CallReader(Protocol):
    """Reads calls from the text of a model, piece by piece. Other text is skipped."""

    def feed(self, text: str) -> list[CallDelta]: ...

    def finished(self) -> list[tuple[str, str]]:
        """Name and arguments of the calls that were completed since the last time."""
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
        """The first place where a call of one of the tools begins or may begin. `is_first`: the answer had no
        text before this one."""

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
    """A text as a Lark literal."""
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
