"""Who holds which cells of the KV cache, and whose beginning may be shared.

Cells are counted in segments: a run of tokens that the same sequences hold. Sharing a prefix splits
a segment and adds an owner; nothing is copied, here or in llama.cpp. Sequences that have ended stay
as idle prefixes until their cells or their id are wanted, the least recently used first.

This is bookkeeping over plain numbers. What must also happen in llama.cpp goes out through `KVMemory`.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

Tokens = array  # array("i"): token ids

# A cell costs 0.75 us for each token that is generated beside it in a batch, and 2.5 ms to compute
# anew (135M Q4_1, 2 cores of an EPYC Zen 5): as much after 3,300 tokens. Alone it costs nothing.
# Who comes back, in a loop or with the next turn of a script, mostly comes back at once.
CREDIT_TOKENS = 3300
CREDIT_UNUSED_TOKENS = 128
# Attention walks over holes too, and scattered cells miss the caches: 8 sequences in a daemon that had
# run for a while made 0.87 of a bare loop's tokens, 0.93 in a fresh one. A hole costs 0.3 us for each
# token generated beside it, moving a cell 14 us (same device): as much after 48 tokens.
PACK_RENT = 48


class CellRun(NamedTuple):
    """Positions [first_pos, first_pos + n) that the sequences `owners` hold together."""

    owners: frozenset[int]
    first_pos: int
    n: int


class KVMemory(Protocol):
    """llama.cpp's side: `copy` shares cells [0, n) of `src` with `dst`; `trim` drops cells from n on.

    `pack` moves everything, which is `runs`, to the beginning of the cache, run after run; it can move
    `n_movable` cells, 0 where a model's state does not allow it.
    """

    n_movable: int

    def copy(self, src: int, dst: int, n: int) -> None: ...

    def trim(self, seq_id: int, n: int) -> None: ...

    def pack(self, runs: list[CellRun]) -> None: ...


@dataclass(eq=False)
class Segment:
    n_tokens: int
    owners: set[int]


@dataclass(eq=False)
class IdlePrefix:
    """An ended sequence whose `tokens` are all in the cache."""

    seq_id: int
    tokens: Tokens[int]
    scope: str
    request_id: int | None = None  # whose answer it was
    used_at: int = 0  # on the clock of `KVCache.expire`
    n_hits: int = 0


@dataclass(frozen=True)
class Match:
    """The longest cached beginning of a prompt: `n` tokens held by sequence `seq_id`."""

    seq_id: int | None
    n: int


@dataclass
class KVCache:
    """Cells and ids of one context. Touched by the engine thread only.

    `n_cells` bounds the cells, ids run from 0 to `n_ids - 1`.
    """

    n_cells: int
    n_ids: int
    memory: KVMemory
    n_used: int = 0
    clock: int = 0
    n_holes: int = 0  # cells given back since the last packing, less those taken since
    _rent: int = 0  # what the holes have cost, in tokens generated beside a hole
    _chains: dict[int, list[Segment]] = field(default_factory=dict)
    _idle: dict[int, IdlePrefix] = field(default_factory=dict)  # oldest use first
    _free_ids: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._free_ids = list(range(self.n_ids - 1, -1, -1))

    @property
    def n_free(self) -> int:
        return self.n_cells - self.n_used

    @property
    def n_idle(self) -> int:
        return len(self._idle)

    def n_evictable(self) -> int:
        """Cells that would come free if every idle prefix went."""
        seen: dict[int, int] = {}
        for seq_id in self._idle:
            for segment in self._chains[seq_id]:
                if segment.owners <= self._idle.keys():
                    seen[id(segment)] = segment.n_tokens
        return sum(seen.values())

    def best_idle(self, tokens: Tokens[int], scope: str) -> Match:
        """The idle prefix of this scope that shares most with `tokens`."""
        best = Match(None, 0)
        for idle in self._idle.values():
            if idle.scope == scope and (n := common_prefix(idle.tokens, tokens)) > best.n:
                best = Match(idle.seq_id, n)
        return best

    def idle_of(self, request_id: int) -> IdlePrefix | None:
        """What is cached of an ended request, until somebody goes on with it."""
        found = [idle for idle in self._idle.values() if idle.request_id == request_id]
        return found[-1] if found else None

    def acquire(self, match: Match) -> int | None:
        """An id for a new sequence, holding the matched cells; None when every id is running.

        An idle prefix that the match covers whole, or that is the only one left to evict, is
        continued in place; otherwise its cells are shared and it stays.
        """
        source = match.seq_id if match.n else None
        idle = self._idle.get(source) if source is not None else None
        if source is not None and idle is not None:
            del self._idle[source]
            if len(idle.tokens) <= match.n:
                self._truncate(source, match.n)
                return source
            self._idle[source] = idle  # used just now: last to go
            idle.used_at = self.clock
            idle.n_hits += 1
        if not self._free_ids and not self._evict_oldest(spare=source):
            if source is None or idle is None:
                return None
            del self._idle[source]
            self._truncate(source, match.n)
            return source
        seq_id = self._free_ids.pop()
        self._chains[seq_id] = []
        if source is not None:
            self._share(source, seq_id, match.n)
        return seq_id

    def make_room(self, n: int) -> bool:
        """Evict idle prefixes until `n` cells are free; False, and nothing evicted, if that cannot be."""
        if self.n_free >= n:
            return True
        if self.n_free + self.n_evictable() < n:
            return False
        while self.n_free < n:
            self._evict_oldest(spare=None)
        return True

    def append(self, seq_id: int, n: int) -> None:
        """Count `n` more cells for a sequence; room was made before."""
        assert self.n_free >= n
        chain = self._chains[seq_id]
        if chain and chain[-1].owners == {seq_id}:
            chain[-1].n_tokens += n
        else:
            chain.append(Segment(n, {seq_id}))
        self.n_used += n
        self.n_holes = max(0, self.n_holes - n)

    def rest(
        self, seq_id: int, tokens: Tokens[int], scope: str, request_id: int | None = None
    ) -> None:
        """Keep an ended sequence as an idle prefix of `tokens`, all of them in the cache."""
        self._truncate(seq_id, len(tokens))
        if len(tokens) == 0:
            self.release(seq_id)
            return
        self._idle[seq_id] = IdlePrefix(seq_id, tokens, scope, request_id, self.clock)

    def release(self, seq_id: int) -> None:
        """Drop a sequence and give back its id and the cells that no other holds."""
        self._truncate(seq_id, 0)
        self._idle.pop(seq_id, None)
        del self._chains[seq_id]
        self._free_ids.append(seq_id)

    def expire(self, n_tokens: int) -> None:
        """Move the clock by tokens that were generated beside the idle prefixes; the dear ones go.

        Attention walks over every cell up to the last one in use, also over those of others. What an
        idle prefix has cost since its last use is compared with what computing it anew would cost;
        one that nobody has come back to yet is given less credit.
        """
        self.clock += n_tokens
        for idle in list(self._idle.values()):
            credit = CREDIT_TOKENS * idle.n_hits or CREDIT_UNUSED_TOKENS
            if self.clock - idle.used_at > credit:
                self.release(idle.seq_id)

    def pack(self, n_tokens: int) -> bool:
        """Close the holes once they have cost, by tokens generated beside them, what closing them costs.

        Everything that is cached must be counted: not between a step and `append`.
        Source: the ski rental problem; who moves at that moment pays at most twice the best.
        """
        self._rent += n_tokens * self.n_holes
        is_worth = self._rent > PACK_RENT * self.n_used > 0
        return is_worth and self.pack_now()

    def pack_now(self) -> bool:
        """Close the holes. False where that is too much to move, or cannot be."""
        if self.n_used > self.memory.n_movable:
            return False
        self.memory.pack(self._runs())
        self.n_holes = self._rent = 0
        return True

    def _runs(self) -> list[CellRun]:
        runs: dict[int, CellRun] = {}
        for chain in self._chains.values():
            first_pos = 0
            for segment in chain:
                runs.setdefault(
                    id(segment), CellRun(frozenset(segment.owners), first_pos, segment.n_tokens)
                )
                first_pos += segment.n_tokens
        return list(runs.values())

    def restart(self, seq_id: int) -> None:
        """Take back all cells of a running sequence, which keeps its id."""
        self._truncate(seq_id, 0)

    def forget(self, scope: str | None = None) -> int:
        """Drop the idle prefixes of a scope (None: all). Returns how many went."""
        gone = [i.seq_id for i in self._idle.values() if scope is None or i.scope == scope]
        for seq_id in gone:
            self.release(seq_id)
        return len(gone)

    def length(self, seq_id: int) -> int:
        return sum(segment.n_tokens for segment in self._chains[seq_id])

    def _evict_oldest(self, spare: int | None) -> bool:
        for seq_id in self._idle:
            if seq_id != spare:
                self.release(seq_id)
                return True
        return False

    def _share(self, src: int, dst: int, n: int) -> None:
        left = n
        for segment in list(self._chains[src]):
            if left == 0:
                break
            if segment.n_tokens > left:
                self._split(segment, left)
            segment.owners.add(dst)
            self._chains[dst].append(segment)
            left -= segment.n_tokens
        assert left == 0, "a match is never longer than its source"
        self.memory.copy(src, dst, n)

    def _split(self, segment: Segment, at: int) -> None:
        tail = Segment(segment.n_tokens - at, set(segment.owners))
        segment.n_tokens = at
        for owner in segment.owners:
            chain = self._chains[owner]
            chain.insert(_index(chain, segment) + 1, tail)

    def _truncate(self, seq_id: int, n: int) -> None:
        excess = self.length(seq_id) - n
        if excess <= 0:
            return
        chain = self._chains[seq_id]
        while excess > 0:
            last = chain[-1]
            if last.n_tokens > excess:
                self._split(last, last.n_tokens - excess)
                last = chain[-1]
            chain.pop()
            last.owners.discard(seq_id)
            excess -= last.n_tokens
            if not last.owners:
                self.n_used -= last.n_tokens
                self.n_holes += last.n_tokens
        if self.n_used == 0:
            self.n_holes = self._rent = 0
        self.memory.trim(seq_id, n)


def _index(chain: list[Segment], segment: Segment) -> int:
    return next(i for i, other in enumerate(chain) if other is segment)


def common_prefix(a: Iterable[int] | Tokens[int], b: Tokens[int]) -> int:
    """How many leading tokens two arrays share: doubling steps of memory comparison, then bisection."""
    assert isinstance(a, array)
    limit = min(len(a), len(b))
    va, vb = memoryview(a), memoryview(b)
    low, high = 0, limit
    if va[:limit] == vb[:limit]:
        return limit
    while high - low > 1:
        middle = (low + high) // 2
        if va[low:middle] == vb[low:middle]:
            low = middle
        else:
            high = middle
    return low
