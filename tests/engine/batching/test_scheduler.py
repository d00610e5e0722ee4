"""Step plans by table and property: no weights, no clock."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeagent.engine.batching.scheduler import (
    MIN_CHUNK,
    Lane,
    Pace,
    WaitingLane,
    pick_displaced,
    pick_victim,
    pick_waiting,
    pick_yielding,
    plan_step,
    waits_for_leader,
)

lanes_strategy = st.lists(
    st.tuples(st.integers(1, 2000), st.booleans()).map(
        lambda pair: Lane(0, 1 if pair[1] else pair[0], pair[1])
    ),
    max_size=40,
).map(lambda lanes: [Lane(key, lane.n_pending, lane.is_decoding) for key, lane in enumerate(lanes)])


@given(lanes=lanes_strategy, n_batch=st.integers(32, 2048), chunk=st.integers(0, 4096))
def test_a_plan_never_exceeds_the_batch_nor_a_prompt(lanes, n_batch, chunk):
    plan = plan_step(lanes, n_batch, chunk)
    by_key = {lane.key: lane for lane in lanes}
    assert plan.n_tokens <= n_batch
    assert sum(n for _, n in plan.prefill) <= max(chunk, MIN_CHUNK)
    assert all(0 < n <= by_key[key].n_pending for key, n in plan.prefill)


@given(lanes=lanes_strategy, n_batch=st.integers(64, 2048), chunk=st.integers(0, 4096))
def test_every_decoding_sequence_gets_its_token_before_any_prompt(lanes, n_batch, chunk):
    plan = plan_step(lanes, n_batch, chunk)
    assert plan.decode == [lane.key for lane in lanes if lane.is_decoding][:n_batch]


@given(lanes=lanes_strategy, n_batch=st.integers(64, 2048), chunk=st.integers(0, 4096))
def test_something_runs_whenever_something_is_pending(lanes, n_batch, chunk):
    assert bool(plan_step(lanes, n_batch, chunk).n_tokens) == bool(lanes)


@pytest.mark.parametrize(
    ("prompts", "expected"),
    [
        ([1000, 20], {2: 20, 1: 44}),
        ([1000, 300, 20], {3: 20, 2: 12, 1: 32}),  # the shortest first, half of the chunk for both
        ([1000, 600], {1: 64}),  # not much shorter: the oldest first
        ([60, 20], {1: 60, 2: 4}),  # the oldest ends with this step
        ([20, 1000], {1: 20, 2: 44}),
    ],
)
def test_short_prompts_do_not_wait_for_a_long_one(prompts: list[int], expected: dict[int, int]):
    lanes = [Lane(i + 1, n, False) for i, n in enumerate(prompts)]
    plan = plan_step(lanes, 512, 64)
    assert dict(plan.prefill) == expected and len(plan.prefill) == len(expected)
    answer = Lane(9, 30, False, is_answering=True)
    assert plan_step([*lanes, answer], 512, 64).prefill[0] == (9, 30)


@pytest.mark.parametrize(
    ("lanes", "chunk", "decode", "prefill"),
    [
        ([], 100, [], []),
        ([Lane(1, 1, True)], 100, [1], []),
        ([Lane(1, 500, False)], 100, [], [(1, 100)]),
        ([Lane(1, 60, False), Lane(2, 60, False)], 100, [], [(1, 60), (2, 40)]),
        ([Lane(1, 500, False), Lane(2, 1, True)], 100, [2], [(1, 100)]),
        ([Lane(1, 500, False), Lane(2, 1, True)], 0, [2], [(1, MIN_CHUNK)]),
        # What a grammar forced comes before a prompt, however old: somebody is reading.
        ([Lane(1, 500, False), Lane(2, 7, False, True)], 100, [], [(2, 7), (1, 93)]),
    ],
)
def test_prompts_share_the_chunk_oldest_first_after_forced_tokens(lanes, chunk, decode, prefill):
    plan = plan_step(lanes, 512, chunk)
    assert (plan.decode, plan.prefill) == (decode, prefill)


def test_the_chunk_follows_the_measured_prefill_rate():
    pace = Pace()
    assert pace.chunk_limit(0.1, 0, 512) == 4 * MIN_CHUNK
    pace.observe(n_decode=0, n_prefill=100, took_s=0.5)  # 200 tokens/s
    assert pace.chunk_limit(0.5, n_decode=1, n_batch=512) == 100
    assert pace.chunk_limit(0.5, n_decode=0, n_batch=512) == 400
    assert pace.chunk_limit(0.001, n_decode=1, n_batch=512) == MIN_CHUNK
    assert pace.chunk_limit(60, n_decode=1, n_batch=512) == 512


def test_a_device_that_slows_down_gets_smaller_chunks_within_a_few_steps():
    pace = Pace()
    pace.observe(0, 100, 0.1)
    before = pace.chunk_limit(0.1, 1, 4096)
    for _ in range(8):
        pace.observe(0, 100, 0.4)
    assert pace.chunk_limit(0.1, 1, 4096) < 0.35 * before


def test_the_share_of_decoding_is_taken_out_of_a_mixed_step():
    pace = Pace()
    pace.observe(n_decode=4, n_prefill=0, took_s=0.02)
    pace.observe(n_decode=4, n_prefill=100, took_s=0.12)
    assert pace.prefill_per_s == pytest.approx(1000)


@pytest.mark.parametrize(
    ("now", "later", "past", "waits"),
    [
        (0, 900, 100, True),
        (0, 900, 900, False),  # the leader is through: share now
        (0, 7, 0, False),  # too few tokens to wait for
        (895, 900, 100, False),  # an idle prefix has almost as much
        (0, 0, 0, False),
    ],
)
def test_a_follower_waits_only_where_it_gains(now, later, past, waits):
    assert waits_for_leader(now, later, past) is waits


def test_the_newest_gives_way_and_the_last_one_never_does():
    assert pick_victim([(7, 1), (3, 9), (5, 4)]) == 3
    assert pick_victim([(7, 1)]) is None
    assert pick_victim([]) is None


PATIENCE_S = 15.0


@pytest.mark.parametrize(
    ("waiters", "next_one"),
    [
        ([WaitingLane(0, 0, 0, 0)], 0),
        ([WaitingLane(0, 3, 0, 0), WaitingLane(0, 1, 0, 0)], 0),  # who came first
        ([WaitingLane(0, 3, 0, 0), WaitingLane(1, 1, 0, 0)], 1),  # priority
        ([WaitingLane(0, 9, 4, 0), WaitingLane(0, 1, 0, 0)], 1),  # the key with fewer running
        ([WaitingLane(0, 9, 2, 2), WaitingLane(0, 1, 2, 0)], 1),  # the request with fewer
        (
            [WaitingLane(100, 1, 4, 0), WaitingLane(0, PATIENCE_S, 0, 0)],
            1,
        ),  # it has waited long enough
        ([WaitingLane(100, 1, 4, 0), WaitingLane(-100, PATIENCE_S, 0, 0)], 1),
        ([WaitingLane(100, 1, 0, 0), WaitingLane(0, PATIENCE_S / 2, 0, 0)], 0),  # not yet
        ([WaitingLane(-5, 9, 0, 0), WaitingLane(-5, 10, 0, 0), WaitingLane(-6, 1, 0, 0)], 0),
    ],
)
def test_the_next_admitted_has_priority_patience_or_the_smaller_share(waiters, next_one):
    assert pick_waiting(waiters, PATIENCE_S) == next_one


@given(
    others=st.lists(st.builds(WaitingLane, st.integers(-100, 100), st.floats(0, 14), st.integers(1, 8),
                              st.integers(0, 8)), max_size=30),
    priority=st.integers(-100, 100),
)  # fmt: skip
def test_none_is_passed_over_for_ever(others, priority):
    patient = WaitingLane(priority, PATIENCE_S, 0, 0)
    assert pick_waiting([*others, patient], PATIENCE_S) == len(others)


@given(waiters=st.lists(st.builds(WaitingLane, st.integers(-3, 3), st.just(0.0), st.integers(0, 3),
                                  st.integers(0, 3)), min_size=1, max_size=12))  # fmt: skip
def test_of_those_that_just_came_none_with_a_lower_priority_is_first(waiters):
    chosen = waiters[pick_waiting(waiters, PATIENCE_S)]
    assert chosen.priority == max(waiter.priority for waiter in waiters)
    rivals = [waiter for waiter in waiters if waiter.priority == chosen.priority]
    assert chosen.n_scope == min(waiter.n_scope for waiter in rivals)


@pytest.mark.parametrize(
    ("n_waiting", "scope", "whose"),
    [
        ({}, "a", None),
        ({"a": 8}, "a", None),
        ({"a": 8}, "b", "a"),
        ({"a": 8, "b": 7}, "b", None),  # it has its share
        ({"a": 8, "b": 6}, "b", "a"),
        ({"a": 3, "b": 5}, "c", "b"),
        ({"a": 1}, "b", None),
    ],
)
def test_a_full_queue_makes_room_at_the_cost_of_the_key_with_the_most_waiting(
    n_waiting, scope, whose
):
    assert pick_displaced(n_waiting, scope) == whose


@pytest.mark.parametrize(
    ("running", "scope", "who"),
    [
        ([], "b", None),
        ([("a", 1)], "b", None),  # it keeps its only one
        ([("a", 1), ("a", 2)], "b", 2),
        ([("a", 1), ("a", 2)], "a", None),
        ([("a", 3), ("b", 1), ("a", 2)], "b", None),  # it has one
        ([("a", 1), ("c", 5), ("a", 2)], "b", 2),
        ([("a", 1), ("c", 2)], "b", None),
    ],
)
def test_a_key_without_a_slot_gets_one_of_the_key_with_the_most(running, scope, who):
    assert pick_yielding(running, scope) == who
