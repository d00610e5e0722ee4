"""The shortest way that a grammar lets a text end: a search over the bytes that may come next.

    best first:  f = bytes said + 6 for each bracket and text that is open

A state is known by the bytes that it allows: of the states as far from the beginning with the same ones, the
first is followed. Where only one byte may come it is taken. Few bytes are tried of each state at first (what
closes, a digit, a letter), others when those lead nowhere. Patterns bring examples of what they match, whole
and from any of their characters on, since within one a state does not show by what it allows.
"""

from __future__ import annotations

import heapq
import time
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

OPEN_COST = 6
# Of a byte that must come, and of one that came where what is open could have been closed.
STEP_COST, STAY_COST = 0.2, 5.0
# What is tried of a state, and at which cost: the bytes ranked from the first number to the second.
EXAMPLES = 1
BATCHES = ((0, 0, 6), (8, 0, 0), (24, 6, 24), (96, 24, 256))
LOOK_AT_CLOCK = 16
END = 256  # ids from here on are no bytes
QUOTE, BRACKETS, COMMA = frozenset(b'"'), frozenset(b"}]"), frozenset(b",")
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


class Place(NamedTuple):
    """Where in JSON a text is: how many brackets are open, whether within a text or behind a backslash, and
    how many commas came: a list that needs five items does not show by what it allows how many it has."""

    n_open: int = 0
    is_text: bool = False
    is_escaped: bool = False
    n_commas: int = 0

    def after(self, said: bytes) -> Place:
        n_open, is_text, is_escaped, n_commas = self
        for byte in said:
            if is_text:
                if is_escaped:
                    is_escaped = False
                elif byte == 0x5C:
                    is_escaped = True
                elif byte == 0x22:
                    is_text = False
            elif byte == 0x22:
                is_text = True
            elif byte in b"{[":
                n_open += 1
            elif byte in b"}]":
                n_open -= 1
            elif byte == 0x2C:
                n_commas += 1
        return Place(n_open, is_text, is_escaped, n_commas)

    @property
    def cost(self) -> int:
        return OPEN_COST * (self.n_open + self.is_text)


# How long a text is, where it is, what may follow, and the example that was its last step.
Key = tuple[int, Place, bytes, bytes]


class _State(NamedTuple):
    matcher: Any
    said: bytes
    place: Place
    spent: float = 0.0
    key: Key = (0, Place(), b"", b"")


class Search:
    """One search, from a matcher over bytes that is left as it is. Any one thread.

    `examples` are texts for patterns, as bytes within a JSON text. `run` may be called again where it ended
    for lack of time.
    """

    def __init__(self, matcher: Any, place: Place, examples: Sequence[bytes] = ()) -> None:
        self._examples = examples
        self._n = 0
        self._done: set[Key] = set()
        self._best: dict[Key, float] = {}
        self._heap: list[tuple[float, int, int, _State]] = []
        self.n_states = 0
        self._push(_State(matcher.deep_copy(), b"", place), 0)

    def run(self, n_states: int, most: int, timeout_s: float) -> bytes | None:
        """The way out, of at most `most` bytes; None where it is not found among `n_states` more, or in
        time."""
        deadline_s = time.monotonic() + timeout_s
        for n in range(n_states):
            if not self._heap or (n % LOOK_AT_CLOCK == 0 and time.monotonic() > deadline_s):
                return None
            _, _, batch, state = heapq.heappop(self._heap)
            self.n_states += 1
            if batch == 0:
                # Only now: of two states that look alike the one that cost less comes first.
                if state.key in self._done:
                    continue
                self._done.add(state.key)
                if state.matcher.is_accepting() or state.matcher.is_stopped():
                    return state.said
                if len(state.said) >= most:
                    continue
                if forced := state.matcher.compute_ff_tokens():
                    self._go(state, bytes(forced), STEP_COST, is_forced=True)
                    continue
            self._spread(state, batch)
        return None

    def _spread(self, state: _State, batch: int) -> None:
        """Go on with some of the bytes that may come, and come back for others later."""
        ranks = _RANKS[state.place.is_text]
        allowed = sorted(_allowed(state.matcher), key=ranks.__getitem__)
        closers = _closers(allowed, state.place)
        if batch == EXAMPLES and not closers:
            for text in self._examples if state.place.is_text else ():
                self._go(state, text, STEP_COST)
        _, first, last = BATCHES[batch]
        for byte in allowed[first:last]:
            cost = STEP_COST if not closers or byte in closers else STAY_COST
            self._go(state, bytes([byte]), cost)
        if batch + 1 < len(BATCHES):
            self._push(state, batch + 1)

    def _go(self, state: _State, said: bytes, cost: float, *, is_forced: bool = False) -> None:
        matcher = state.matcher.deep_copy()
        tokens = list(said)
        if len(tokens) > 1 and not is_forced and matcher.validate_tokens(tokens) < len(tokens):
            return
        if not matcher.consume_tokens(tokens):
            return
        place = state.place.after(said)
        spent = state.spent + cost + STEP_COST * (len(said) - 1)
        following = _State(matcher, state.said + said, place, spent)
        mask = matcher.compute_bitmask()
        # An example may be on its way although it allows what everything allows.
        example = said if len(said) > 1 and not is_forced else b""
        known = (len(following.said), place, mask, example)
        if known not in self._done and self._best.get(known, spent + 1) > spent:
            self._best[known] = spent
            self._push(following._replace(key=known), 0)

    def _push(self, state: _State, batch: int) -> None:
        cost = state.spent + state.place.cost + BATCHES[batch][0]
        self._n += 1
        heapq.heappush(self._heap, (cost, self._n, batch, state))


def _closers(allowed: list[int], place: Place) -> frozenset[int]:
    """Those of the bytes that end something: none where it must go on."""
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
