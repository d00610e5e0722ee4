"""Which LoRA adapter the next step is computed with, and what is shared between sequences of several."""

from __future__ import annotations

from collections import Counter

import pytest

from edgeagent.engine.batching.adapter_turns import AdapterTurns, pick_adapter
from edgeagent.engine.batching.scheduler import Lane
from tests.engine.batching.test_engine import Harness
from tests.engine.fakes import reference


def lane(key: int, adapter: str | None) -> Lane:
    return Lane(key, 1, is_decoding=True, adapter=adapter)


@pytest.mark.parametrize(
    ("adapters", "last_turns", "picked"),
    [
        ([], {}, None),
        ([None, "a"], {}, None),
        (["a", None], {}, "a"),
        (["a", None], {"a": 1}, None),
        (["a", "b", None], {"a": 3, "b": 1, None: 2}, "b"),
        # One that waits no more is not waited for.
        (["a", "b"], {"a": 1, "b": 2, "c": 0}, "a"),
    ],
)
def test_the_group_whose_turn_is_longest_ago_is_next(
    adapters: list[str | None], last_turns: dict[str | None, int], picked: str | None
) -> None:
    lanes = [lane(key, adapter) for key, adapter in enumerate(adapters)]
    assert pick_adapter(lanes, last_turns) == picked


def test_every_sequence_has_a_token_in_each_round_however_large_the_other_groups_are() -> None:
    turns, served = AdapterTurns(), Counter[int]()
    lanes = [lane(key, "many") for key in range(6)] + [lane(6, "one"), lane(7, None)]
    for _ in range(30):
        chosen = turns.lanes_of_turn(lanes)
        assert len({one.adapter for one in chosen}) == 1
        served.update(one.key for one in chosen)
        turns.took(chosen[0].adapter)
    assert set(served.values()) == {10}


def test_without_adapters_all_lanes_take_part() -> None:
    lanes = [lane(1, None), lane(2, None)]
    assert AdapterTurns().lanes_of_turn(lanes) is lanes


def test_a_prefix_serves_its_own_adapter_only() -> None:
    harness = Harness(n_cells=600)
    prompt = [1 + n % 9 for n in range(60)]
    for request_id, adapter in enumerate([None, "a", "b", "a", None]):
        harness.submit(request_id, prompt, max_new=6, adapter=adapter)
        harness.finish()
        assert harness.tokens(request_id) == reference(prompt, 6, adapter)
    cached = [harness.ends[request_id, 0].usage.n_cached for request_id in range(5)]
    assert cached == [0, 0, 0, 59, 59]


def test_a_step_has_one_adapter() -> None:
    harness = Harness(n_cells=600)
    seen: list[tuple[str | None, int]] = []
    harness.runner.before_step = lambda rows: seen.append((harness.runner.adapter, len(rows)))
    for request_id, adapter in enumerate(["a", "a", "b", None]):
        harness.submit(request_id, [request_id + 1, 2, 3], max_new=5, adapter=adapter)
    harness.finish()
    assert {adapter for adapter, _ in seen} == {"a", "b", None}
    assert max(n for _, n in seen) == 2
