"""Prefixes outside the KV cache: a tree of pieces, each with some tokens and the state of their cells.

Prefixes that begin alike share the pieces of their beginning. Pure data: `prefix_parking` fills and reads it.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from edgeagent.engine.batching.kv_cache import Tokens, common_prefix

State = bytes | memoryview

# Bytes of a piece, about: reading it takes half a millisecond, for which running answers wait.
PIECE_BYTES = 1 << 20
LEAST_TOKENS = 16


class Key(NamedTuple):
    """Whose prefixes may be shared: those of one API key, computed with one LoRA adapter."""

    scope: str
    adapter: str | None


@dataclass(eq=False)
class Piece:
    """The tokens from position `first` on, behind those of the pieces above it, and their state."""

    first: int
    tokens: Tokens[int]
    data: State
    above: Piece | None
    used_at: int = 0
    below: list[Piece] = field(default_factory=list)

    @property
    def last(self) -> int:
        return self.first + len(self.tokens)


class ParkedPrefixes:
    """At most `max_bytes` of state; the pieces that were not used for longest go first.

    `cell_bytes`: about how much a token takes.
    """

    def __init__(self, cell_bytes: int) -> None:
        self.n_bytes = 0
        self._cell_bytes = cell_bytes
        self._piece_tokens = max(LEAST_TOKENS, PIECE_BYTES // max(1, cell_bytes))
        self._roots: dict[Key, Piece] = {}
        self._leaves: dict[int, Piece] = {}  # by id(): pieces with nothing below, which may go
        self._clock = 0

    def __len__(self) -> int:
        return len(self._leaves)

    def match(self, key: Key, tokens: Tokens[int]) -> int:
        """How many leading tokens of `tokens` are here."""
        path = self._path(key, tokens)
        return path[-1][1] if path else 0

    def pieces(self, key: Key, tokens: Tokens[int]) -> Iterator[Piece]:
        """The pieces that hold them, in order. The last one may go on differently than `tokens`."""
        self._clock += 1
        for piece, _ in self._path(key, tokens):
            piece.used_at = self._clock
            yield piece

    def has_room(self, n_tokens: int, max_bytes: int) -> bool:
        """Whether a prefix of so many tokens has room, when all others go."""
        return n_tokens * self._cell_bytes <= max_bytes

    def keep(
        self,
        key: Key,
        tokens: Tokens[int],
        read: Callable[[int, int], State],
        max_bytes: int,
        n_pieces: int,
    ) -> bool:
        """Take in a prefix, whose state `read` gives by the first and the last position, at most `n_pieces`
        of it, and drop others for it. True: all of it is here. Ask `has_room` before."""
        self._clock += 1
        above = self._roots.setdefault(key, Piece(0, array("i"), b"", None))
        for piece, n in self._path(key, tokens):
            if n < piece.last:  # it goes on differently, or beyond the end
                break
            piece.used_at = self._clock
            above = piece
        if above.last < len(tokens) and self.match(key, tokens) == len(tokens):
            return True  # a longer one that begins with it is here
        while above.last < len(tokens) and n_pieces > 0:
            last = min(len(tokens), above.last + self._piece_tokens)
            data = read(above.last, last)
            above = self._add(above, tokens[above.last : last], data)
            n_pieces -= 1
        self.shrink(max_bytes, spare=above)
        return above.last == len(tokens)

    def shrink(self, max_bytes: int, spare: Piece | None = None) -> None:
        """Drop pieces until no more than this is left."""
        while self.n_bytes > max_bytes:
            able = [piece for piece in self._leaves.values() if piece is not spare]
            if not able:
                return
            self._drop(min(able, key=lambda piece: piece.used_at))

    def forget(self, scope: str | None = None) -> int:
        """Drop the prefixes of a scope (None: all). Returns how many ended there."""
        n_before = len(self)
        for key in [key for key in self._roots if scope is None or key.scope == scope]:
            for piece in list(_all_below(self._roots.pop(key))):
                self._leaves.pop(id(piece), None)
                self.n_bytes -= len(piece.data)
        return n_before - len(self)

    def _path(self, key: Key, tokens: Tokens[int]) -> list[tuple[Piece, int]]:
        """The pieces that begin `tokens`, each with the number of tokens that agree up to its end."""
        piece = self._roots.get(key)
        path: list[tuple[Piece, int]] = []
        while piece is not None:
            rest = tokens[piece.last : piece.last + self._piece_tokens]
            n, best = 0, None
            for one in piece.below:
                if (agree := common_prefix(one.tokens, rest)) > n:
                    n, best = agree, one
            if best is None:
                return path
            path.append((best, best.first + n))
            piece = best if n == len(best.tokens) else None
        return path

    def _add(self, above: Piece, tokens: Tokens[int], data: State) -> Piece:
        piece = Piece(above.last, tokens, data, above, self._clock)
        above.below.append(piece)
        self._leaves.pop(id(above), None)
        self._leaves[id(piece)] = piece
        self.n_bytes += len(data)
        return piece

    def _drop(self, piece: Piece) -> None:
        del self._leaves[id(piece)]
        self.n_bytes -= len(piece.data)
        above = piece.above
        assert above is not None, "a root is no leaf"
        above.below.remove(piece)
        if not above.below and above.above is not None:
            self._leaves[id(above)] = above


def _all_below(root: Piece) -> Iterator[Piece]:
    left = list(root.below)
    while left:
        piece = left.pop()
        left += piece.below
        yield piece
