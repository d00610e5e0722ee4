"""Questions about the KV cache of a worker, and the state of cached tokens."""

from __future__ import annotations

import msgspec


class HeldSpec(msgspec.Struct, frozen=True, tag="held"):
    """Which tokens of an ended request are cached."""

    request_id: int


class LiftSpec(msgspec.Struct, frozen=True, tag="lift"):
    """The state of its positions [first, last)."""

    request_id: int
    first: int
    last: int


class CachedSpec(msgspec.Struct, frozen=True, tag="cached"):
    """How many of these tokens, from the first on, are cached for a scope: int32 [n]."""

    scope: str
    tokens: bytes


class PlaceSpec(msgspec.Struct, frozen=True, kw_only=True, tag="place"):
    """A state to cache for a scope: `data` is that of the positions of `tokens` (int32 [n]) from
    `first` on; those before must be cached."""

    scope: str
    tokens: bytes
    first: int
    data: bytes


# What is asked of a worker and answered at once, in one piece.
StateQuestion = HeldSpec | LiftSpec | CachedSpec | PlaceSpec


class Cells(msgspec.Struct, frozen=True, kw_only=True, tag="cells"):
    """An answer about cached tokens, by the question: `n` of them are cached, or `n` bytes hold one."""

    n: int
    tokens: bytes = b""
    data: bytes = b""
