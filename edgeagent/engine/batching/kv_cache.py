"""Which sequences hold which cells of the KV cache, and which prefixes can be shared.

Cells are counted in segments: a segment is a series of tokens that the same sequences hold. Sharing a
prefix splits a segment and adds an owner; nothing is copied, here or in llama.cpp. Ended sequences stay
as idle prefixes until their cells or ids are needed, and are evicted least recently used first.

The class does bookkeeping over plain numbers and calls llama.cpp through `KVMemory`.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

Tokens = array  # array("i"): token ids

# A cell costs 0.75 us for each token that is generated in the same batch, and 2.5 ms to compute again
# (135M Q4_1, 2 cores of an EPYC Zen 5): the same after 3,300 tokens. Without a batch it costs nothing.
# A prefix that is used again, in a loop or by the next turn of a script, is mostly used again at once.
CREDIT_TOKENS = 3300
CREDIT_UNUSED_TOKENS = 128
# Attention reads holes too, and scattered cells miss the processor's caches: 8 sequences generated 0.87 of
# a bare loop's tokens in a daemon that had run for a while, and 0.93 in a fresh one. A hole costs 0.3 us
# for each generated token, moving a cell 14 us (same device): the same after 48 tokens.
PACK_RENT = 48
# Where readers wait meanwhile, which all notice: 30 ms for 1,400 cells, in the middle of eight answers.
READERS_RENT = 4 * PACK_RENT


class CellRun(NamedTuple):
    """Positions [first_pos, first_pos + n) that the sequences `owners` hold together."""

    owners: frozenset[int]
    first_pos: int
    n: int


class KVMemory(Protocol):
    """The cells in llama.cpp: `copy` shares cells [0, n) of `src` with `dst`; `trim` drops cells from n on.
    `settle` has the cells of a sequence where they can be shared: those of a running one may lie elsewhere.

    `pack` moves all cells, listed in `runs`, to the beginning of the cache, one run after another. It can
    move at most `n_movable` cells, which is 0 if the model's state cannot be moved.
    """

    n_movable: int

    def copy(self, src: int, dst: int, n: int) -> None: ...

    def trim(self, seq_id: int, n: int) -> None: ...

    def settle(self, seq_id: int) -> None: ...

    def pack(self, runs: list[CellRun]) -> None: ...


@dataclass(eq=False)
class Segment:
    n_tokens: int
    owners: set[int]


@dataclass(eq=False)
class IdlePrefix:
    """An ended sequence whose `tokens` are all in the cache, computed with the LoRA adapter `adapter`."""

    seq_id: int
    tokens: Tokens[int]
    scope: str
    request_id: int | None = None  # the request that it belonged to
    adapter: str | None = None
    used_at: int = 0  # `KVCache.clock` at the last use
    used_at_token: int = 0  # `KVCache.n_computed` then
    n_hits: int = 0


@dataclass(frozen=True)
class Match:
    """The longest cached beginning of a prompt: `n` tokens held by sequence `seq_id`."""

    seq_id: int | None
    n: int


@dataclass
class KVCache:
    """The cells and sequence ids of one context. Engine thread only.

    There are `n_cells` cells, and ids from 0 to `n_ids - 1`.
    """

    n_cells: int
    n_ids: int
    memory: KVMemory
    n_used: int = 0
    n_most_used: int = 0  # at any time so far
    clock: int = 0
    n_computed: int = 0  # tokens of all sequences so far
    before_eviction: Callable[[IdlePrefix], None] = lambda idle: None  # to make room
    n_holes: int = 0  # cells freed since the last packing, less those used again since
    _rent: int = 0  # cost of the holes: the sum over generated tokens of the holes at that time
    _chains: dict[int, list[Segment]] = field(default_factory=dict)
    _idle: dict[int, IdlePrefix] = field(default_factory=dict)  # oldest use first
    _free_ids: list[int] = field(default_factory=list)
    _continued: set[int] = field(default_factory=set)  # sequences that began as an idle prefix

    def __post_init__(self) -> None:
        self._free_ids = list(range(self.n_ids - 1, -1, -1))

    @property
    def n_free(self) -> int:
        return self.n_cells - self.n_used

    @property
    def share_never_used(self) -> float:
        """The part of all cells that no token has been in. llama.cpp takes the first free ones."""
        return 1 - self.n_most_used / self.n_cells

    @property
    def n_idle(self) -> int:
        return len(self._idle)

    @property
    def has_free_id(self) -> bool:
        """Whether a new sequence needs the id of no idle prefix."""
        return bool(self._free_ids)

    def n_evictable(self) -> int:
        """Cells that evicting every idle prefix would free."""
        seen: dict[int, int] = {}
        for seq_id in self._idle:
            for segment in self._chains[seq_id]:
                if segment.owners <= self._idle.keys():
                    seen[id(segment)] = segment.n_tokens
        return sum(seen.values())

    def best_idle(self, tokens: Tokens[int], scope: str, adapter: str | None = None) -> Match:
        """The idle prefix of this scope and adapter that shares the most tokens with `tokens`."""
        best = Match(None, 0)
        for idle in self._idle.values():
            if (idle.scope, idle.adapter) != (scope, adapter):
                continue
            if (n := common_prefix(idle.tokens, tokens)) > best.n:
                best = Match(idle.seq_id, n)
        return best

    def is_idle(self, seq_id: int | None) -> bool:
        return seq_id in self._idle

    def idle_of(self, request_id: int) -> IdlePrefix | None:
        """The idle prefix of an ended request; None if it was evicted or continued by another sequence."""
        found = [idle for idle in self._idle.values() if idle.request_id == request_id]
        return found[-1] if found else None

    def acquire(self, match: Match) -> int | None:
        """The id of a new sequence that holds the matched cells; None when every id is in use.

        An idle prefix that the match covers completely, or that is the only one left to evict, becomes the
        new sequence. Otherwise its cells are shared and it stays.
        """
        source = match.seq_id if match.n else None
        idle = self._idle.get(source) if source is not None else None
        if source is not None and idle is not None:
            del self._idle[source]
            if len(idle.tokens) <= match.n:
                self._truncate(source, match.n)
                self._continued.add(source)
                return source
            self._idle[source] = idle  # used just now: the last to be evicted
            idle.used_at, idle.used_at_token = self.clock, self.n_computed
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
        """Evict idle prefixes until `n` cells are free. False, evicting none, if that is impossible."""
        if self.n_free >= n:
            return True
        if self.n_free + self.n_evictable() < n:
            return False
        while self.n_free < n:
            self._evict_oldest(spare=None)
        return True

    def append(self, seq_id: int, n: int) -> None:
        """Count `n` more cells of a sequence. Call `make_room` before."""
        assert self.n_free >= n
        chain = self._chains[seq_id]
        if chain and chain[-1].owners == {seq_id}:
            chain[-1].n_tokens += n
        else:
            chain.append(Segment(n, {seq_id}))
        self.n_used += n
        self.n_most_used = max(self.n_most_used, self.n_used)
        self.n_holes = max(0, self.n_holes - n)

    def rest(
        self, seq_id: int, tokens: Tokens[int], scope: str, request_id: int | None = None,
        adapter: str | None = None,
    ) -> None:  # fmt: skip
        """Keep an ended sequence as an idle prefix of `tokens`, all of them in the cache.

        One that continued an idle prefix counts as used again: a dialogue that went on will go on.
        """
        self._truncate(seq_id, len(tokens))
        if len(tokens) == 0:
            self.release(seq_id)
            return
        self.memory.settle(seq_id)
        n_hits = int(seq_id in self._continued)
        self._continued.discard(seq_id)
        self._idle[seq_id] = IdlePrefix(
            seq_id, tokens, scope, request_id, adapter, self.clock, self.n_computed, n_hits
        )

    def release(self, seq_id: int) -> None:
        """Drop a sequence, its id, and the cells that no other sequence holds."""
        self._truncate(seq_id, 0)
        self._idle.pop(seq_id, None)
        self._continued.discard(seq_id)
        del self._chains[seq_id]
        self._free_ids.append(seq_id)

    def expire(
        self, n_tokens: int, spare: Callable[[IdlePrefix], bool] = lambda idle: False
    ) -> None:
        """Advance the clock by the tokens that were generated, and evict idle prefixes that cost too much.

        Attention reads every cell up to the last one in use, those of other sequences too. What an idle
        prefix has cost since its last use is compared with the cost of computing it again; a prefix that
        was never used again gets less credit. `spare` decides otherwise where it gives True.
        """
        self.clock += n_tokens
        for idle in list(self._idle.values()):
            if spare(idle):
                continue
            credit = CREDIT_TOKENS * idle.n_hits or CREDIT_UNUSED_TOKENS
            if self.clock - idle.used_at > credit:
                self.release(idle.seq_id)

    def pack(self, n_tokens: int, *, is_noticed: bool = False) -> bool:
        """Close the holes once they have cost as much as closing them costs, and more where that `is_noticed`
        by readers of answers. True if cells were moved.

        Call it only when all cached cells are counted, which they are not between a step and `append`.
        Source: the ski rental problem; packing at this time costs at most twice the optimum, and beside
        readers at most five times.
        """
        self._rent += n_tokens * self.n_holes
        rent = READERS_RENT if is_noticed else PACK_RENT
        is_worth = self._rent > rent * self.n_used > 0
        return is_worth and self.pack_now()

    def pack_now(self) -> bool:
        """Close the holes. False if there are more cells than can be moved."""
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

    def cut(self, seq_id: int, n: int) -> None:
        """Drop the cells of a running sequence behind its first `n` tokens."""
        self._truncate(seq_id, n)

    def forget(self, scope: str | None = None) -> int:
        """Drop the idle prefixes of a scope (None: all). Returns how many were dropped."""
        gone = [i.seq_id for i in self._idle.values() if scope is None or i.scope == scope]
        for seq_id in gone:
            self.release(seq_id)
        return len(gone)

    def length(self, seq_id: int) -> int:
        return sum(segment.n_tokens for segment in self._chains[seq_id])

    def _evict_oldest(self, spare: int | None) -> bool:
        for seq_id, idle in self._idle.items():
            if seq_id != spare:
                self.before_eviction(idle)
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
