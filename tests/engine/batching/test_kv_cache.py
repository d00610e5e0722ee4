"""The cell count against a model that keeps a set of cells for each sequence."""

from __future__ import annotations

import itertools
from array import array

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from edgeagent.engine.batching.kv_cache import (
    CREDIT_TOKENS,
    CREDIT_UNUSED_TOKENS,
    PACK_RENT,
    READERS_RENT,
    CellRun,
    KVCache,
    Match,
    common_prefix,
)
from tests.conftest import n_examples
from tests.engine.fakes import assert_covers

N_CELLS = 64
N_IDS = 6


class Cells:
    """llama.cpp's side as sets: which cells each sequence holds, by position."""

    def __init__(self) -> None:
        self.held: dict[int, list[int]] = {}
        self._fresh = itertools.count()
        self.n_movable = N_CELLS
        self.n_packed = 0

    def copy(self, src: int, dst: int, n: int) -> None:
        assert not self.held.get(dst)
        self.held[dst] = self.held[src][:n]

    def trim(self, seq_id: int, n: int) -> None:
        self.held[seq_id] = self.held.get(seq_id, [])[:n]

    def settle(self, seq_id: int) -> None:
        assert self.held[seq_id], "only what is kept is settled"

    def pack(self, runs: list[CellRun]) -> None:
        assert_covers(runs, self.held)
        self.n_packed += 1

    def write(self, seq_id: int, n: int) -> None:
        self.held.setdefault(seq_id, []).extend(next(self._fresh) for _ in range(n))

    @property
    def n_used(self) -> int:
        return len(set().union(*map(set, self.held.values())))


class CacheMachine(RuleBasedStateMachine):
    """Random lives of sequences: begin (sharing), grow, end or rest, evict."""

    def __init__(self) -> None:
        super().__init__()
        self.cells = Cells()
        self.cache = KVCache(N_CELLS, N_IDS, self.cells)
        self.running: dict[int, array[int]] = {}

    @precondition(lambda self: len(self.running) < N_IDS)
    @rule(prompt=st.lists(st.integers(0, 2), min_size=1, max_size=24))
    def begin(self, prompt: list[int]) -> None:
        tokens = array("i", prompt)
        best = self.cache.best_idle(tokens, "")
        match = Match(best.seq_id, min(best.n, len(tokens) - 1))
        for seq_id, other in self.running.items():
            if (n := min(common_prefix(other, tokens), len(tokens) - 1)) > match.n:
                match = Match(seq_id, n)
        seq_id = self.cache.acquire(match)
        assert seq_id is not None
        assert seq_id not in self.running
        assert self.cache.length(seq_id) == match.n
        self.running[seq_id] = tokens[: match.n]
        n = len(tokens) - match.n
        if self.cache.make_room(n):
            self.cache.append(seq_id, n)
            self.cells.write(seq_id, n)
            self.running[seq_id] = tokens

    @precondition(lambda self: self.running)
    @rule(data=st.data(), token=st.integers(0, 2))
    def grow(self, data: st.DataObject, token: int) -> None:
        seq_id = data.draw(st.sampled_from(sorted(self.running)))
        if self.cache.make_room(1):
            self.cache.append(seq_id, 1)
            self.cells.write(seq_id, 1)
            self.running[seq_id].append(token)

    @precondition(lambda self: self.running)
    @rule(data=st.data(), keep=st.booleans())
    def end(self, data: st.DataObject, keep: bool) -> None:
        seq_id = data.draw(st.sampled_from(sorted(self.running)))
        tokens = self.running.pop(seq_id)
        if keep:
            self.cache.rest(seq_id, tokens, "")
        else:
            self.cache.release(seq_id)

    @rule(n=st.integers(0, N_CELLS))
    def make_room(self, n: int) -> None:
        possible = self.cache.n_free + self.cache.n_evictable()
        assert self.cache.make_room(n) == (n <= possible)
        assert self.cache.n_free >= min(n, possible) or n > possible

    @rule()
    def forget(self) -> None:
        self.cache.forget()
        assert self.cache.n_idle == 0

    @rule(n=st.integers(1, 100 * PACK_RENT))
    def pack(self, n: int) -> None:
        holes = self.cache.n_holes
        if self.cache.pack(n):
            assert holes > 0
            assert self.cache.n_holes == 0

    @invariant()
    def counts_agree_with_the_cells(self) -> None:
        assert self.cache.n_used == self.cells.n_used <= N_CELLS
        for seq_id, tokens in self.running.items():
            assert self.cache.length(seq_id) == len(tokens) == len(self.cells.held.get(seq_id, []))


TestCacheMachine = CacheMachine.TestCase
TestCacheMachine.settings = settings(
    max_examples=n_examples(150), stateful_step_count=40, deadline=None
)


@given(a=st.lists(st.integers(0, 3), max_size=50), b=st.lists(st.integers(0, 3), max_size=50))
def test_common_prefix_is_what_a_loop_finds(a, b):
    expected = 0
    for left, right in zip(a, b, strict=False):
        if left != right:
            break
        expected += 1
    assert common_prefix(array("i", a), array("i", b)) == expected


def _ended(cache: KVCache, cells: Cells, tokens: list[int], scope: str = "") -> int:
    seq_id = cache.acquire(Match(None, 0))
    assert seq_id is not None
    cache.append(seq_id, len(tokens))
    cells.write(seq_id, len(tokens))
    cache.rest(seq_id, array("i", tokens), scope)
    return seq_id


@pytest.fixture
def cells() -> Cells:
    return Cells()


def test_the_least_recently_used_prefix_goes_first(cells):
    cache = KVCache(30, 4, cells)
    _ended(cache, cells, [1] * 10)
    _ended(cache, cells, [2] * 10)
    assert cache.acquire(cache.best_idle(array("i", [1] * 5 + [9]), "")) is not None  # a use
    assert cache.make_room(15)
    assert cache.best_idle(array("i", [1] * 10), "").n == 10
    assert cache.best_idle(array("i", [2] * 10), "").n == 0


def test_a_prefix_of_another_scope_is_not_found(cells):
    cache = KVCache(30, 4, cells)
    _ended(cache, cells, [1, 2, 3], scope="alice")
    assert cache.best_idle(array("i", [1, 2, 3]), "bob") == Match(None, 0)
    assert cache.best_idle(array("i", [1, 2, 3]), "alice").n == 3
    assert cache.forget("bob") == 0
    assert cache.forget("alice") == 1
    assert cache.n_used == 0


def test_a_prompt_that_continues_a_prefix_takes_its_place(cells):
    cache = KVCache(30, 2, cells)
    old = _ended(cache, cells, [1, 2, 3])
    assert cache.acquire(cache.best_idle(array("i", [1, 2, 3, 4]), "")) == old
    assert (cache.n_idle, cache.n_used) == (0, 3)


def test_the_only_idle_prefix_is_taken_over_when_no_other_id_is_left(cells):
    cache = KVCache(30, 1, cells)
    old = _ended(cache, cells, [1, 2, 3, 4])
    assert cache.acquire(Match(old, 2)) == old
    assert (cache.n_idle, cache.n_used) == (0, 2)


def test_no_id_is_left_when_all_are_running(cells):
    cache = KVCache(30, 1, cells)
    assert cache.acquire(Match(None, 0)) == 0
    assert cache.acquire(Match(None, 0)) is None


def test_a_prefix_nobody_came_back_to_goes_when_it_has_cost_its_credit(cells):
    cache = KVCache(60, 6, cells)
    _ended(cache, cells, [1] * 10)
    used = _ended(cache, cells, [2] * 10)
    sharer = cache.acquire(Match(used, 5))
    assert sharer is not None
    cache.expire(CREDIT_UNUSED_TOKENS)
    assert cache.n_idle == 2
    cache.expire(1)
    assert cache.best_idle(array("i", [1] * 10), "").n == 0
    assert cache.best_idle(array("i", [2] * 10), "").n == 10
    cache.expire(CREDIT_TOKENS)
    assert cache.n_idle == 0
    assert cache.length(sharer) == 5, "what a running sequence shares stays"


def test_a_dialogue_that_went_on_stays_longer_than_one_that_did_not(cells):
    cache = KVCache(60, 6, cells)
    first = _ended(cache, cells, [1] * 10)
    _ended(cache, cells, [2] * 10)
    assert cache.acquire(Match(first, 10)) == first
    cells.write(first, 2)
    cache.append(first, 2)
    cache.rest(first, array("i", [1] * 12), "")
    cache.expire(CREDIT_UNUSED_TOKENS + 1)
    assert cache.best_idle(array("i", [1] * 12), "").n == 12
    assert cache.best_idle(array("i", [2] * 10), "").n == 0
    cache.expire(CREDIT_TOKENS)
    assert cache.n_idle == 0


def test_holes_are_closed_once_they_have_cost_as_much_as_closing_them(cells):
    cache = KVCache(N_CELLS, N_IDS, cells)
    first = _ended(cache, cells, list(range(20)))
    _ended(cache, cells, list(range(20, 30)))
    cache.release(first)
    assert cache.n_holes == 20
    assert not cache.pack(PACK_RENT // 2)  # 20 holes for 24 tokens: as much as 10 cells for 48
    assert cache.pack(1)
    assert (cells.n_packed, cache.n_holes) == (1, 0)
    assert not cache.pack(1000), "nothing is left to close"


def test_readers_wait_for_the_closing_of_holes_that_have_cost_much_more(cells):
    cache = KVCache(N_CELLS, N_IDS, cells)
    first = _ended(cache, cells, list(range(20)))
    _ended(cache, cells, list(range(20, 30)))
    cache.release(first)
    assert not cache.pack(READERS_RENT // 2, is_noticed=True)
    assert cache.pack(0), "nobody reads an answer now"


def test_holes_are_closed_beside_readers_who_never_pause(cells):
    cache = KVCache(N_CELLS, N_IDS, cells)
    first = _ended(cache, cells, list(range(20)))
    _ended(cache, cells, list(range(20, 30)))
    cache.release(first)
    assert sum(cache.pack(8, is_noticed=True) for _ in range(READERS_RENT // 16 + 1)) == 1


def test_cells_that_are_taken_again_are_no_holes(cells):
    cache = KVCache(N_CELLS, N_IDS, cells)
    first = _ended(cache, cells, list(range(20)))
    _ended(cache, cells, list(range(20, 30)))
    cache.release(first)
    _ended(cache, cells, list(range(40, 65)))
    assert cache.n_holes == 0


def test_more_than_can_be_moved_stays_where_it_is(cells):
    cache = KVCache(N_CELLS, N_IDS, cells)
    cells.n_movable = 9
    first = _ended(cache, cells, list(range(20)))
    _ended(cache, cells, list(range(20, 30)))
    cache.release(first)
    assert not cache.pack(1000)
    assert cells.n_packed == 0
