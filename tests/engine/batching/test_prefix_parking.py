"""Idle prefixes that leave the cache and come back: texts, room and erasure, on a model without weights."""

from __future__ import annotations

from array import array

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeagent.engine.batching.prefix_parking import PARK_TOKENS
from edgeagent.types.kv_state import CachedTokensSpec
from tests.conftest import n_examples
from tests.engine.batching.test_engine import Harness
from tests.engine.fakes import reference

PROMPT = list(range(1, 41))
CELL_BYTES = 4


def parking(n_cells: int = 1024, **config) -> Harness:
    harness = Harness(n_cells, **config)
    harness.engine.parking.untouched_bytes = n_cells * CELL_BYTES
    return harness


def work(harness: Harness, request_id: int, n_tokens: int = PARK_TOKENS + 32, **options) -> None:
    """Compute something that has nothing to do with the other prompts."""
    harness.submit(request_id, [90 - i % 7 for i in range(n_tokens)], max_new=2, **options)
    harness.finish()


def answered(harness: Harness, request_id: int, prompt: list[int], **options) -> list[int]:
    harness.submit(request_id, prompt, **options)
    harness.finish()
    assert harness.tokens(request_id) == reference(prompt, 8)
    return prompt + harness.tokens(request_id)


def test_a_prefix_leaves_the_cache_and_comes_back_for_its_next_turn():
    harness = parking()
    tokens = answered(harness, 1, PROMPT)
    n_used = harness.engine.health(0).n_cells_used
    work(harness, 2)
    held = [seq for seq, cells in harness.runner.held.items() if len(cells) >= len(PROMPT)]
    assert len(held) == 1, "what was computed last"
    assert harness.engine.parking.n_parked == 1
    assert harness.engine.parking.reserved_bytes < CELL_BYTES * (1024 - n_used)
    answered(harness, 3, [*tokens, 50, 51])
    assert harness.ends[3, 0].usage.n_cached >= len(tokens) - 1


def test_the_same_prompt_again_computes_its_last_token_only():
    harness = parking()
    answered(harness, 1, PROMPT)
    work(harness, 2)
    answered(harness, 3, PROMPT)
    assert harness.ends[3, 0].usage.n_cached == len(PROMPT) - 1


def test_nothing_is_parked_without_room_and_where_texts_are_reproducible():
    for harness in (Harness(1024), parking(reproducible=True)):
        answered(harness, 1, PROMPT)
        work(harness, 2)
        assert harness.engine.parking.n_parked == 0


def test_what_gives_way_to_others_is_parked():
    harness = parking(128)
    harness.engine.parking.untouched_bytes = 1 << 20
    tokens = answered(harness, 1, PROMPT)
    work(harness, 2, n_tokens=100)  # needs the cells
    answered(harness, 3, tokens)
    assert harness.ends[3, 0].usage.n_cached == len(tokens) - 1


@pytest.mark.parametrize("scope", ["alice", None])
def test_a_forgotten_prefix_does_not_come_back(scope):
    harness = parking()
    answered(harness, 1, PROMPT, scope="alice")
    work(harness, 2)
    assert harness.engine.parking.n_parked == 1
    harness.engine.forget_prefixes("bob")
    assert harness.engine.parking.n_parked == 1
    harness.engine.forget_prefixes(scope)
    assert harness.engine.parking.n_parked == 0
    answered(harness, 3, PROMPT, scope="alice")
    assert harness.ends[3, 0].usage.n_cached == 0


def test_nobody_gets_what_another_key_or_adapter_has_parked():
    harness = parking()
    answered(harness, 1, PROMPT, scope="alice")
    work(harness, 2)
    answered(harness, 3, PROMPT, scope="bob")
    assert harness.ends[3, 0].usage.n_cached == 0
    harness.submit(4, PROMPT, scope="alice", adapter="tone")
    harness.finish()
    assert harness.tokens(4) == reference(PROMPT, 8, "tone")


def test_the_daemon_can_still_read_the_state_of_a_parked_request():
    harness = parking()
    tokens = answered(harness, 1, PROMPT)
    work(harness, 2)
    found = array("i")
    found.frombytes(harness.engine.kv_transfer.answer(CachedTokensSpec(1)).tokens)
    assert list(found) == tokens[: len(found)] and len(found) >= len(tokens) - 1


def test_a_state_that_does_not_fit_is_computed_again():
    harness = parking()
    answered(harness, 1, PROMPT)
    work(harness, 2)
    harness.runner.refuses_state = True
    answered(harness, 3, PROMPT)
    assert harness.ends[3, 0].usage.n_cached == 0


turns = st.lists(
    st.tuples(st.integers(0, 3), st.integers(1, 60), st.booleans()), min_size=4, max_size=12
)


@given(turns=turns, room=st.sampled_from([0, 400, 4000]), n_cells=st.sampled_from([192, 512]))
@settings(max_examples=n_examples(25), deadline=None)
def test_dialogues_read_as_if_computed_alone(turns, room: int, n_cells: int):
    """Turns of four dialogues, some at once, with little room outside the cache or much."""
    harness = parking(n_cells)
    said: dict[int, list[int]] = {}
    for number, (dialogue, n_more, is_alone) in enumerate(turns):
        harness.engine.parking.untouched_bytes = room * n_cells
        prompt = said.get(dialogue, [dialogue + 1])[:100]
        prompt = [*prompt, *(1 + (7 * number + i) % 90 for i in range(n_more))][:140]
        harness.submit(number, prompt)
        if not is_alone:
            harness.submit(1000 + number, [5, *prompt[:20]])
        harness.finish()
        assert harness.tokens(number) == reference(prompt, 8)
        said[dialogue] = prompt + harness.tokens(number)
