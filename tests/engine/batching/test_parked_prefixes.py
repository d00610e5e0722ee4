"""The tree of parked pieces, against a plain list of what was kept."""

from __future__ import annotations

from array import array

from hypothesis import given, settings
from hypothesis import strategies as st

from edgeagent.engine.batching import parked_prefixes
from edgeagent.engine.batching.parked_prefixes import Key, ParkedPrefixes
from tests.conftest import n_examples

ALICE, BOB = Key("alice", None), Key("bob", None)
PIECE = parked_prefixes.LEAST_TOKENS
CELL = parked_prefixes.PIECE_BYTES  # so large that pieces have as few tokens as they may


def state(tokens: array[int]):
    """The state of some tokens: each of them once."""
    return lambda first, last: tokens[first:last].tobytes()


def keep(parked: ParkedPrefixes, key: Key, tokens: list[int], room: int = 1 << 40) -> None:
    ids = array("i", tokens)
    assert parked.keep(key, ids, state(ids), room, n_pieces=1000)


def read_back(parked: ParkedPrefixes, key: Key, tokens: list[int]) -> list[int]:
    found = array("i")
    for piece in parked.pieces(key, array("i", tokens)):
        assert piece.first == len(found)
        found.frombytes(piece.data)
        assert piece.last == len(found)
    return list(found)


@given(
    st.lists(st.lists(st.integers(0, 1), min_size=1, max_size=5 * PIECE), max_size=6),
    st.lists(st.integers(0, 1), max_size=5 * PIECE),
)
@settings(max_examples=n_examples(40), deadline=None)
def test_the_longest_beginning_is_found_and_read_back(kept: list[list[int]], tokens: list[int]):
    parked = ParkedPrefixes(CELL)
    for one in kept:
        keep(parked, ALICE, one)
    agree = [next((i for i, (a, b) in enumerate(zip(one, tokens, strict=False)) if a != b),
                  min(len(one), len(tokens))) for one in kept]  # fmt: skip
    n = parked.match(ALICE, array("i", tokens))
    # A piece that goes on differently is passed by as a whole: one of the others may agree for longer.
    assert max(agree, default=0) - PIECE < n <= max(agree, default=0) or not kept
    assert read_back(parked, ALICE, tokens)[:n] == tokens[:n]
    for one in kept:
        assert parked.match(ALICE, array("i", one)) == len(one)
        assert parked.match(BOB, array("i", one)) == 0


def test_what_begins_alike_is_kept_once():
    parked = ParkedPrefixes(CELL)
    shared = list(range(4 * PIECE))
    keep(parked, ALICE, [*shared, 901])
    n_bytes = parked.n_bytes
    keep(parked, ALICE, [*shared, 902, 903])
    assert parked.n_bytes == n_bytes + 2 * 4
    keep(parked, ALICE, shared[: PIECE + 3])
    assert parked.n_bytes == n_bytes + 2 * 4, "the beginning of another is there"


def test_a_long_prefix_is_taken_in_piece_by_piece():
    parked, ids = ParkedPrefixes(CELL), array("i", range(3 * PIECE))
    assert not parked.keep(ALICE, ids, state(ids), 1 << 40, n_pieces=1)
    assert parked.match(ALICE, ids) == PIECE
    assert not parked.keep(ALICE, ids, state(ids), 1 << 40, n_pieces=1)
    assert parked.keep(ALICE, ids, state(ids), 1 << 40, n_pieces=1)
    assert parked.match(ALICE, ids) == 3 * PIECE


def test_what_was_not_used_for_longest_goes_first_from_its_end():
    parked = ParkedPrefixes(CELL)
    room = 4 * PIECE * 4  # bytes of four pieces of tokens
    first, second = [1] * 2 * PIECE, [2] * 2 * PIECE
    keep(parked, ALICE, first, room)
    keep(parked, ALICE, second, room)
    assert len(list(parked.pieces(ALICE, array("i", first)))) == 2  # a use
    keep(parked, ALICE, [3] * PIECE, room)
    assert parked.match(ALICE, array("i", first)) == 2 * PIECE
    assert parked.match(ALICE, array("i", second)) == PIECE
    parked.shrink(0)
    assert (parked.n_bytes, len(parked)) == (0, 0)


def test_the_prefixes_of_a_scope_are_forgotten():
    parked = ParkedPrefixes(CELL)
    keep(parked, ALICE, [1] * 3 * PIECE)
    keep(parked, Key("alice", "tone"), [1, 2])
    keep(parked, BOB, [1, 2, 3])
    assert parked.forget("alice") == 2
    assert parked.match(ALICE, array("i", [1])) == 0
    assert parked.match(BOB, array("i", [1, 2, 3])) == 3
    assert parked.forget() == 1
    assert parked.n_bytes == 0
