"""Lines of many keys, served in turn."""

from __future__ import annotations

import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeagent.engine.batching.fair_queue import FairQueue


@pytest.mark.parametrize(
    ("put", "got"),
    [
        ("", ""),
        ("aaa", "aaa"),
        ("aab", "aba"),
        ("aaabbc", "abcaba"),
        ("aaaab", "abaaa"),
    ],
)
def test_keys_take_turns(put, got):
    queue: FairQueue[str] = FairQueue(16)
    for key in put:
        assert queue.put(key, key) == (True, None)
    assert queue.is_empty == (not put)
    assert "".join(str(queue.get()) for _ in put) == got
    assert queue.is_empty


@given(
    limit=st.integers(1, 6),
    steps=st.lists(st.sampled_from(["a", "b", "c", None]), max_size=60),
)
def test_nothing_is_lost_in_silence_and_each_key_keeps_its_order(limit, steps):
    queue: FairQueue[tuple[str, int]] = FairQueue(limit)
    inside: list[tuple[str, int]] = []
    for number, key in enumerate(steps):
        if key is None:
            if inside:
                item = queue.get()
                assert item == next(other for other in inside if other[0] == item[0])
                inside.remove(item)
            continue
        has_place, lost = queue.put(key, (key, number))
        if lost is not None:
            assert lost == [other for other in inside if other[0] == lost[0]][-1]
            inside.remove(lost)
        if has_place:
            inside.append((key, number))
        else:
            assert len(inside) == limit
        assert len(inside) <= limit
    longest = max(sum(other[0] == key for other in inside) for key in "abc")
    assert longest <= limit


def test_one_that_waits_is_woken_by_an_item_and_by_the_end():
    queue: FairQueue[int] = FairQueue(1)
    got: list[int | None] = []
    thread = threading.Thread(target=lambda: got.extend([queue.get(), queue.get()]))
    thread.start()
    queue.put("a", 1)
    while not got and thread.is_alive() and queue._n:
        thread.join(0.01)
    queue.close()
    queue.close()
    thread.join(10)
    assert got == [1, None]
