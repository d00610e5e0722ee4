"""Questions about the KV cache of a worker, and the state of cached tokens."""

from __future__ import annotations

import msgspec


class CachedTokensSpec(msgspec.Struct, frozen=True, tag="held"):
    """Asks which tokens of an ended request are cached."""

    request_id: int


class ReadCellsSpec(msgspec.Struct, frozen=True, tag="lift"):
    """Asks for the KV state of the positions [first, last) of an ended request."""

    request_id: int
    first: int
    last: int


class CachedLengthSpec(msgspec.Struct, frozen=True, tag="cached"):
    """Asks how many of these tokens (int32 [n]), from the first on, are cached for a scope."""

    scope: str
    tokens: bytes


class LoadCellsSpec(msgspec.Struct, frozen=True, kw_only=True, tag="place"):
    """A KV state to cache for a scope: `data` holds the positions of `tokens` (int32 [n]) from `first`
    on; the positions before must be cached."""

    scope: str
    tokens: bytes
    first: int
    data: bytes


# Questions that a worker answers at once, in one piece.
StateQuestion = CachedTokensSpec | ReadCellsSpec | CachedLengthSpec | LoadCellsSpec


class Cells(msgspec.Struct, frozen=True, kw_only=True, tag="cells"):
    """The answer to a question about cached tokens: the number of cached tokens, or of bytes per token."""

    n: int
    tokens: bytes = b""
    data: bytes = b""
