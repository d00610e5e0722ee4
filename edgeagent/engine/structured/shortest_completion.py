"""Finds the shortest text that ends an answer in its grammar: a search over the bytes that may come next.

    best first:  f = bytes said + 6 for each bracket and text that is open

States with the same position in the JSON and the same allowed bytes count as equal, and only the first is
followed. Where many values are still to come, all ways through the first ones cost about the same: after a
few hundred states the search is hasty, counts each value that it has left behind, and goes on with a value
or a text only where it must. If that fails, lengths distinguish states too.

A forced byte is taken at once. Of each state a few bytes are tried first (closing ones, a digit, a letter),
others if those fail. For patterns and formats there are example texts, tried from each of their characters
on: the allowed bytes do not show the position in a pattern.
"""

from __future__ import annotations

import heapq
import time
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from edgeagent.engine.batching.time_slices import Sliced

OPEN_COST = 6
# Of a byte that must come, and of one that came where what is open could have been closed.
STEP_COST, STAY_COST = 0.2, 5.0
HASTY_COST = 0.1  # of a byte of a text that must come, in a hasty search
# Of a byte that has no alternative: a long name that must come says nothing against the steps before it.
FORCED_COST = 0.02
# Which bytes of a state are tried at which cost: those ranked from the first number to the second.
EXAMPLES = 1
BATCHES = ((0, 0, 6), (8, 0, 0), (24, 6, 24), (96, 24, 256))
# What a value counts that has been left behind, in a hasty search: less than STAY_COST, or members that need
# not come would count as progress.
PROGRESS = 4.0
# After this many states the search is hasty, and after this many lengths distinguish states.
PATIENT_STATES = 300
ROUGH_STATES = 8000
END = 256  # ids from here on are not bytes
QUOTE, BRACKETS, COMMA = frozenset(b'"'), frozenset(b"}]"), frozenset(b",")
STRUCTURE = b'{}[],:"'
_IN_TEXT = b'"0a -:.1/@TPSDMZA_b+'
_OUTSIDE = b'}],":01ntf-2'
_PRINTABLE = bytes(range(33, 127))


def _ranks(first: bytes) -> list[int]:
    order = dict.fromkeys([*first, *(c for c in _PRINTABLE if c != 0x5C), 0x20, 0x5C, *range(256)])
    ranks = [0] * 256
    for rank, byte in enumerate(order):
        ranks[byte] = rank
    return ranks


_RANKS = {True: _ranks(_IN_TEXT), False: _ranks(_OUTSIDE)}


class JsonPosition(NamedTuple):
    """A position in JSON: open brackets, whether in a string or after a backslash, the number of commas, and
    the bytes of the last string or number. The allowed bytes do not show how many items a list has that needs
    five, or how many characters a string has that needs ten."""

    n_open: int = 0
    is_text: bool = False
    is_escaped: bool = False
    n_commas: int = 0
    n_bytes: int = 0

    def after(self, said: bytes) -> JsonPosition:
        n_open, is_text, is_escaped, n_commas, n_bytes = self
        for byte in said:
            n_bytes += 1
            if is_text:
                if is_escaped:
                    is_escaped = False
                elif byte == 0x5C:
                    is_escaped = True
                elif byte == 0x22:
                    is_text, n_bytes = False, 0
                continue
            if byte == 0x22:
                is_text = True
            elif byte in b"{[":
                n_open += 1
            elif byte in b"}]":
                n_open -= 1
            elif byte == 0x2C:
                n_commas += 1
            if byte in STRUCTURE:
                n_bytes = 0
        return JsonPosition(n_open, is_text, is_escaped, n_commas, n_bytes)

    @property
    def cost(self) -> int:
        return OPEN_COST * (self.n_open + self.is_text)


# Where a text is, how long it is if that is told apart, what may follow, the example that was its last step.
Key = tuple[JsonPosition, int, bytes, bytes]


class _State(NamedTuple):
    said: bytes
    place: JsonPosition
    spent: float = 0.0
    key: Key = (JsonPosition(), 0, b"", b"")


class Search:
    """One search, on a matcher over bytes that is moved and returned to its state. Used by one thread.

    `examples` are texts for patterns, as bytes within a JSON string.
    """

    def __init__(self, matcher: Any, place: JsonPosition, examples: Sequence[bytes] = ()) -> None:
        self._matcher = matcher
        self._at = b""  # where the matcher is, from where it was
        self._examples = examples
        self._begin(place)
        self.n_states = 0

    def _begin(
        self, place: JsonPosition, *, is_hasty: bool = False, tells_lengths: bool = False
    ) -> None:
        self._root = _State(b"", place)
        self._is_hasty = is_hasty
        self._tells_lengths = tells_lengths
        self._n = 0
        self._done: set[Key] = set()
        self._best: dict[Key, float] = {}
        self._heap: list[tuple[float, int, int, _State]] = []
        self._push(self._root, 0)

    def run(self, n_states: int, most: int, timeout_s: float) -> Sliced[bytes | None]:
        """The end, of at most `most` bytes; None if it is not found within `n_states` or `timeout_s` of
        work: time of this thread, or answers would be cut where the machine is busy."""
        started, worked_s = time.thread_time(), 0.0
        found = None
        steps = self._steps(n_states, most)
        while worked_s < timeout_s:
            try:
                next(steps)
            except StopIteration as end:
                found = end.value
                break
            worked_s += time.thread_time() - started
            yield
            started = time.thread_time()
        self._move(b"")
        return found

    def _steps(self, n_states: int, most: int) -> Sliced[bytes | None]:
        for _ in range(n_states):
            if self.n_states == PATIENT_STATES:
                self._begin(self._root.place, is_hasty=True)
            if self.n_states == ROUGH_STATES or (not self._heap and not self._tells_lengths):
                self._begin(self._root.place, is_hasty=self._is_hasty, tells_lengths=True)
            if not self._heap:
                return None
            _, _, batch, state = heapq.heappop(self._heap)
            self.n_states += 1
            if batch == 0 and state.key in self._done:
                continue  # of two equal states the one with the lower cost comes first
            if not self._move(state.said):
                return None
            if batch == 0:
                self._done.add(state.key)
                if self._matcher.is_accepting() or self._matcher.is_stopped():
                    return state.said
                if len(state.said) >= most:
                    continue
                if forced := self._matcher.compute_ff_tokens():
                    self._go(state, bytes(forced), FORCED_COST, is_forced=True)
                    yield
                    continue
            yield from self._spread(state, batch)
        return None

    def _move(self, to: bytes) -> bool:
        """Move the matcher to another state. False if it failed."""
        pairs = enumerate(zip(self._at, to, strict=False))
        n_common = next((n for n, (a, b) in pairs if a != b), min(len(self._at), len(to)))
        if n_back := len(self._at) - n_common:
            self._matcher.rollback(n_back)
        more = list(to[n_common:])
        n_moved = self._matcher.try_consume_tokens(more) if more else 0
        self._at = to[: n_common + n_moved]
        return n_moved == len(more) and not self._matcher.is_error()

    def _spread(self, state: _State, batch: int) -> Sliced[None]:
        """Follow some of the allowed bytes, and queue the state again for the others."""
        ranks = _RANKS[state.place.is_text]
        allowed = sorted(_allowed(self._matcher), key=ranks.__getitem__)
        closers = _closers(allowed, state.place)
        begins_text = state.place.is_text and state.place.n_bytes == 0
        if batch == (0 if self._is_hasty and begins_text else EXAMPLES) and not closers:
            for text in self._examples if state.place.is_text else ():
                self._go(state, text, STEP_COST)
                yield
        _, first, last = BATCHES[batch]
        if self._is_hasty and closers and batch == 0:
            allowed = [byte for byte in allowed if byte in closers]
        step = HASTY_COST if self._is_hasty and state.place.is_text else STEP_COST
        for byte in allowed[first:last]:
            cost = step if not closers or byte in closers else STAY_COST
            self._go(state, bytes([byte]), cost)
            yield
        if batch + 1 < len(BATCHES):
            self._push(state, batch + 1)

    def _go(self, state: _State, said: bytes, cost: float, *, is_forced: bool = False) -> None:
        """Queue the state after one step. The matcher is at the same state before and after."""
        matcher, n = self._matcher, len(said)
        n_moved = matcher.try_consume_tokens(list(said))
        mask = matcher.compute_bitmask() if n_moved == n else b""
        if matcher.is_error():
            return
        matcher.rollback(n_moved)
        if n_moved < n:
            return
        place = state.place.after(said)
        spent = state.spent + cost + (FORCED_COST if is_forced else STEP_COST) * (n - 1)
        following = _State(state.said + said, place, spent)
        # An example may be on its way although it allows what everything allows.
        example = said if n > 1 and not is_forced else b""
        known = (place, len(following.said) if self._tells_lengths else 0, mask, example)
        if known not in self._done and self._best.get(known, spent + 1) > spent:
            self._best[known] = spent
            self._push(following._replace(key=known), 0)

    def _push(self, state: _State, batch: int) -> None:
        cost = state.spent + state.place.cost + BATCHES[batch][0]
        if self._is_hasty:
            cost -= PROGRESS * state.place.n_commas
        self._n += 1
        heapq.heappush(self._heap, (cost, self._n, batch, state))


def _closers(allowed: list[int], place: JsonPosition) -> frozenset[int]:
    """The bytes that close something; none if the value must go on."""
    if place.is_text:
        return QUOTE.intersection(allowed)
    return BRACKETS.intersection(allowed) or COMMA.intersection(allowed)


def _allowed(matcher: Any) -> Iterator[int]:
    bits = np.unpackbits(np.frombuffer(matcher.compute_bitmask(), np.uint8), bitorder="little")
    return (int(byte) for byte in np.flatnonzero(bits[:END]))


def suffixes(examples: Sequence[str], most: int = 96) -> list[bytes]:
    """The examples and what is left of each from any of its characters on, as JSON has them, longest first
    of each."""
    import json

    found: dict[bytes, None] = {}
    for text in examples:
        for at in range(len(text)):
            found[json.dumps(text[at:], ensure_ascii=False)[1:-1].encode("utf-8", "replace")] = None
            if len(found) >= most:
                return list(found)
    return list(found)
