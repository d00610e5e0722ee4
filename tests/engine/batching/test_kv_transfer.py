"""Cached tokens taken out of the engine piece by piece, and put into another: the same text goes on."""

from __future__ import annotations

from array import array

from hypothesis import given, settings
from hypothesis import strategies as st

from edgeagent.types.kv_state import (
    CachedLengthSpec,
    CachedTokensSpec,
    LoadCellsSpec,
    ReadCellsSpec,
)
from tests.conftest import n_examples
from tests.engine.batching.test_engine import Harness
from tests.engine.fakes import FakeRunner, reference


def answered(harness: Harness, request_id: int, prompt: list[int], **options) -> list[int]:
    """Run a request to its end; gives its tokens, as far as they are cached."""
    harness.submit(request_id, prompt, **options)
    harness.finish()
    held = array("i")
    held.frombytes(harness.engine.kv_transfer.answer(CachedTokensSpec(request_id)).tokens)
    return list(held)


def pieces_of(harness: Harness, request_id: int, tokens: list[int], size: int):
    """The state of a request in pieces: (first, tokens up to its end, data)."""
    for first in range(0, len(tokens), size):
        last = min(first + size, len(tokens))
        cells = harness.engine.kv_transfer.answer(ReadCellsSpec(request_id, first, last))
        assert cells.n == last
        yield first, tokens[:last], cells.data


def put(harness: Harness, first: int, tokens: list[int], data: bytes, scope: str = "") -> int:
    spec = LoadCellsSpec(scope=scope, tokens=array("i", tokens).tobytes(), first=first, data=data)
    return harness.engine.kv_transfer.answer(spec).n


def cached(harness: Harness, tokens: list[int], scope: str = "") -> int:
    return harness.engine.kv_transfer.answer(
        CachedLengthSpec(scope, array("i", tokens).tobytes())
    ).n


PROMPT = list(range(1, 41))


@given(size=st.integers(1, 50), n_more=st.integers(0, 5))
@settings(max_examples=n_examples(20), deadline=None)
def test_what_one_engine_computed_another_goes_on_from(size: int, n_more: int):
    one, other = Harness(), Harness()
    tokens = answered(one, 1, PROMPT)
    assert tokens == [*PROMPT, *reference(PROMPT, 8)][: len(tokens)]
    for first, upto, data in pieces_of(one, 1, tokens, size):
        assert put(other, first, upto, data) == len(upto) == cached(other, tokens)
    follow = tokens + list(range(50, 50 + n_more))
    other.submit(2, follow)
    other.finish()
    assert other.ends[2, 0].usage.n_cached == min(len(tokens), len(follow) - 1)
    assert other.tokens(2) == reference(follow, 8)


def test_a_piece_without_what_it_follows_is_not_taken():
    one, other = Harness(), Harness()
    tokens = answered(one, 1, PROMPT)
    (_, _, _), (first, upto, data), *_ = pieces_of(one, 1, tokens, 10)
    assert put(other, first, upto, data) == 0 == cached(other, tokens)
    for piece in pieces_of(one, 1, tokens, 10):
        put(other, *piece)
    assert put(other, *next(pieces_of(one, 1, tokens, 10))) == 10, "it is there"
    assert cached(other, tokens) == len(tokens) and cached(other, tokens, "another") == 0


def test_pieces_take_the_place_of_idle_prefixes_and_of_nothing_that_runs():
    one, other = Harness(), Harness(n_cells=64)
    tokens = answered(one, 1, PROMPT)
    answered(other, 1, list(range(60, 90)))
    for piece in pieces_of(one, 1, tokens, 10):
        put(other, *piece)
    assert cached(other, tokens) == len(tokens), "what was idle has gone"
    other.submit(2, list(range(60, 90)), max_new=8)
    other.engine.step()
    longer = answered(one, 2, [*PROMPT, *range(60, 90)])
    for piece in pieces_of(one, 2, longer, 10):
        put(other, *piece)
    assert cached(other, longer) < len(longer)
    other.finish()
    assert other.tokens(2) == reference(list(range(60, 90)), 8)


def test_what_has_gone_or_goes_on_is_not_lifted():
    harness = Harness()
    tokens = answered(harness, 1, PROMPT)
    assert harness.engine.kv_transfer.answer(ReadCellsSpec(1, 0, len(tokens) + 1)).data == b""
    assert harness.engine.kv_transfer.answer(ReadCellsSpec(7, 0, 1)).data == b""
    answered(harness, 2, [*tokens, 9, 9])
    assert harness.engine.kv_transfer.answer(ReadCellsSpec(1, 0, 1)).data == b"", (
        "another goes on with it"
    )
    harness.engine.forget_prefixes(None)
    assert harness.engine.kv_transfer.answer(CachedTokensSpec(2)).tokens == b""


def test_state_that_llama_cpp_refuses_leaves_what_was_there():
    one, other = Harness(), Harness()
    tokens = answered(one, 1, PROMPT)
    (a, b, *_) = pieces_of(one, 1, tokens, 10)
    assert put(other, *a) == 10
    assert isinstance(other.runner, FakeRunner)
    other.runner.refuses_state = True
    assert put(other, *b) == 10 == cached(other, tokens)
    assert other.runner.n_packed == 1, "free cells may lie apart"
    other.submit(2, PROMPT)
    other.finish()
    assert other.tokens(2) == reference(PROMPT, 8)
    assert other.ends[2, 0].usage.n_cached == 10
