"""A copy of an answer's grammar over single bytes, in which the shortest end of the answer is searched.

It reads the text of the answer only when an end is searched, and special tokens by their names.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

from edgeagent.engine.batching.time_slices import Sliced
from edgeagent.engine.structured.schema_examples import examples, most_to_close
from edgeagent.engine.structured.shortest_completion import JsonPosition, Search, suffixes


class Effort(NamedTuple):
    """The bounds of one search. A state takes 50 us (EPYC Zen 5); few searches need more than 50 states."""

    n_states: int
    timeout_s: float


# After a drawn token: the search can be repeated after the next one.
TRY = Effort(400, 0.1)
# After the last token, where the answer would be cut.
LAST_TRY = Effort(20_000, 3)
MAX_BYTES = 16_384
BYTES_AT_ONCE = 128  # 1 ms, in long answers


class AnswerBytes:
    """Where one answer is in the byte grammar. Used by one thread at a time."""

    def __init__(self, closing: ClosingGrammar) -> None:
        self._closing = closing
        self._is_lost = False
        self._begin(b"")

    def _begin(self, unread: bytes) -> None:
        self._matcher = self._closing.matcher.deep_copy()
        self._place = JsonPosition()
        self._text = bytearray()
        self._unread = bytearray(unread)
        self._ways: dict[bytes, bytes] = {}  # known ends, by the text between the answer and them

    def hear(self, said: bytes) -> None:
        """Add text of the answer, which is read when an end is searched."""
        self._unread += said

    def way_out(self, more: bytes, effort: Effort) -> Sliced[bytes | None]:
        """The shortest end that was found for the answer followed by `more`."""
        if not (yield from self._follow()):
            return None
        if more not in self._ways:
            way = yield from self._search(more, effort)
            if way is None:
                return None
            self._ways[more] = way
        return self._ways[more]

    def _follow(self) -> Sliced[bool]:
        """Read the text that was added. False if the grammar does not allow it."""
        if self._is_lost:
            return False
        if self._matcher.is_error():  # a bound of the matcher was reached during a search
            self._begin(bytes(self._text + self._unread))
        said = bytes(self._unread)
        if not said:
            return True
        for at in range(0, len(said), BYTES_AT_ONCE):
            if at:
                yield
            if not self._matcher.consume_tokens(list(said[at : at + BYTES_AT_ONCE])):
                self._is_lost = True
                return False
        self._unread.clear()
        self._text += said
        self._place = self._place.after(said)
        self._keep_ways(said)
        return True

    def _keep_ways(self, said: bytes) -> None:
        """Keep the known ends that begin with the new text."""
        ways = [more + way for more, way in self._ways.items() if said.startswith(more)]
        self._ways.clear()
        for way in ways:
            if way.startswith(said):
                self._ways[b""] = way[len(said) :]

    def _search(self, more: bytes, effort: Effort) -> Sliced[bytes | None]:
        n_consumed = self._matcher.try_consume_tokens(list(more)) if more else 0
        if n_consumed < len(more):
            self._matcher.rollback(n_consumed)
            return None
        search = Search(self._matcher, self._place.after(more), self._closing.examples)
        way = yield from search.run(effort.n_states, MAX_BYTES, effort.timeout_s)
        if more and not self._matcher.is_error():
            self._matcher.rollback(len(more))
        return way


@dataclass(eq=False)
class ClosingGrammar:
    """The byte grammar of one form, shared by its answers. `growth`: see `JsonCompletion`."""

    matcher: Any
    examples: list[bytes]
    growth: int

    def twin(self) -> AnswerBytes:
        return AnswerBytes(self)


def closing_of(matcher: Any, schemas: list[dict[str, Any]]) -> ClosingGrammar:
    """The byte grammar of some schemas. `matcher` is at the beginning of their grammar over bytes."""
    texts = [text for schema in schemas for text in examples(schema)]
    return ClosingGrammar(matcher, suffixes(texts), max(map(most_to_close, schemas)))
