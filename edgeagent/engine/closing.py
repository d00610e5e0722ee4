"""A whole JSON text for an answer whose tokens run out, instead of one that is cut.

    room left:   |------- free -------|-- each token is tried --|- way out -|
                                                                ^ taken here

The way out is the shortest that is found by closing what is open: the string, then whatever must still come
in its shortest form, then arrays and objects. While there is room nothing is looked at; near the end each
drawn token is tried first, and one behind which no way out would fit gives way to that before it. The
answer ends with `length` all the same, since the model had more to say.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Protocol

import numpy as np

# A token may open something that takes this many to close.
NEAR = 32
# Tokens between two tries as long as no way out would fit.
AGAIN = 8
# Tried in this order. Only within a string is a tilde allowed, and there a brace would be text.
_IN_STRING, _PROBE = ('"', "a", "0"), "~"
# Where a text must have a certain form, as a URI, a duration or two words: one after the other.
_IN_TURN = (":", "/", "@", ".", " ", "a", "-", "S", "D", "M", "0", "b", "1")
_OUTSIDE = ("}", "]", '"', ",", ":", "0", "null", "true", "{", "[")  # a comma ends a number


class Held(Protocol):
    """What an ending asks of a constraint."""

    def way_out(self, token: int | None, most: int) -> list[int] | None: ...


class Ending:
    """When one answer must be closed. Engine thread only."""

    def __init__(self, max_new: int) -> None:
        self._look_at = max_new // 2

    def instead(self, held: Held, token: int, room: int) -> list[int] | None:
        """What to say instead of a drawn token, and be done; None: it may stay. `room` counts the tokens that
        the answer may still have, that one included."""
        if room > self._look_at:
            return None
        after = held.way_out(token, room - 1)
        if after is not None:
            slack = room - 1 - len(after)
            self._look_at = room - 1 - max(0, (slack - NEAR) // 2)
            return None
        now = held.way_out(None, room)
        if now is None:
            self._look_at = room - AGAIN
        return now


def way_out(matcher: Any, spell: Callable[[str], list[int]], most: int) -> list[int] | None:
    """Tokens that end what a matcher of llguidance's has begun: at most `most`, or None."""
    found = _way_out(matcher.deep_copy(), spell, most, in_turn=False)
    return _way_out(matcher.deep_copy(), spell, most, in_turn=True) if found is None else found


def _way_out(
    matcher: Any, spell: Callable[[str], list[int]], most: int, *, in_turn: bool
) -> list[int] | None:
    tokens: list[int] = []
    while not (matcher.is_stopped() or matcher.is_accepting()):
        if len(tokens) >= most:
            return None
        turn = len(tokens) if in_turn else None
        step = matcher.compute_ff_tokens() or _step(matcher, spell, turn)
        if not step or not matcher.consume_tokens(step):
            return None
        tokens += step
    return tokens if len(tokens) <= most and not matcher.is_error() else None


def _step(matcher: Any, spell: Callable[[str], list[int]], turn: int | None) -> list[int]:
    texts = _IN_STRING if _allows(matcher, spell(_PROBE)) else _OUTSIDE
    if turn is not None:
        first = turn % len(_IN_TURN)
        texts = (*texts[: texts.index('"') + 1], *_IN_TURN[first:], *_IN_TURN[:first], *texts)
    for text in texts:
        if _allows(matcher, tokens := spell(text)):
            return tokens
    return list(next(_allowed(matcher), []))


def _allows(matcher: Any, tokens: list[int]) -> bool:
    return bool(tokens) and matcher.validate_tokens(tokens) == len(tokens)


def _allowed(matcher: Any) -> Iterator[list[int]]:
    """Each token that may follow, by its number."""
    bits = np.frombuffer(matcher.compute_bitmask(), np.uint8)
    for token in np.flatnonzero(np.unpackbits(bits, bitorder="little")):
        yield [int(token)]
