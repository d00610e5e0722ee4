"""Copies the state of ended requests out of the KV cache, piece by piece, and back into it later.

A piece that is put back extends an idle prefix. After each piece the prefix is complete, so that nothing
has to be cleaned up if no further piece arrives. Engine thread only.
"""

from __future__ import annotations

from array import array

from edgeagent.engine.batching.kv_cache import KVCache, Match
from edgeagent.engine.batching.prefix_parking import PrefixParking
from edgeagent.engine.batching.step_runner import Runner
from edgeagent.types.kv_state import (
    CachedLengthSpec,
    CachedTokensSpec,
    Cells,
    LoadCellsSpec,
    ReadCellsSpec,
    StateQuestion,
)

NOTHING = Cells(n=0)


class KVTransfer:
    """Answers the daemon's questions about the cached state of one context."""

    def __init__(self, kv: KVCache, runner: Runner, parking: PrefixParking) -> None:
        self._kv = kv
        self._runner = runner
        self._parking = parking

    def answer(self, question: StateQuestion) -> Cells:
        """Raises: EngineFailed."""
        match question:
            case CachedTokensSpec(request_id):
                return self._held(request_id)
            case ReadCellsSpec(request_id, first, last):
                return self._lift(request_id, first, last)
            case CachedLengthSpec(scope, tokens):
                return Cells(n=self._kv.best_idle(ids(tokens), scope).n)
            case LoadCellsSpec():
                return self._place(question)

    def _held(self, request_id: int) -> Cells:
        """The tokens of an ended request that are cached, and the bytes of a cell."""
        self._parking.recall_request(request_id)
        idle = self._kv.idle_of(request_id)
        if idle is None or not self._runner.cell_bytes or idle.adapter is not None:
            return NOTHING  # what was computed with an adapter is not kept beyond the context
        return Cells(n=self._runner.cell_bytes, tokens=idle.tokens.tobytes())

    def _lift(self, request_id: int, first: int, last: int) -> Cells:
        """The state of some positions; nothing if the prefix was evicted or continued."""
        idle = self._kv.idle_of(request_id)
        if idle is None or not self._runner.cell_bytes or not 0 <= first < last <= len(idle.tokens):
            return NOTHING
        return Cells(n=last, data=bytes(self._runner.lift(idle.seq_id, first, last)))

    def _place(self, piece: LoadCellsSpec) -> Cells:
        """Cache one more piece behind the cached tokens; returns how many tokens are cached then."""
        tokens, first, kv = ids(piece.tokens), piece.first, self._kv
        last = len(tokens)
        have = kv.best_idle(tokens, piece.scope)
        if have.n >= last or have.n < first or not self._runner.cell_bytes:
            return Cells(n=have.n)
        seq_id = kv.acquire(Match(have.seq_id if first else None, first))
        if seq_id is None:
            return Cells(n=0)
        is_placed = kv.make_room(last - first) and self._put(seq_id, first, last, piece.data)
        if is_placed:
            kv.append(seq_id, last - first)
        n = last if is_placed else first
        kv.rest(seq_id, tokens[:n], piece.scope)
        return Cells(n=n)

    def _put(self, seq_id: int, first: int, last: int, data: bytes) -> bool:
        if self._runner.place(seq_id, first, last, data):
            return True
        # The free cells may not be contiguous.
        return self._kv.pack_now() and self._runner.place(seq_id, first, last, data)


def ids(tokens: bytes) -> array[int]:
    """Token ids from their bytes: int32 [n]."""
    found = array("i")
    found.frombytes(tokens)
    return found
