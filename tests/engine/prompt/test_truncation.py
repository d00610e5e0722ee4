"""Which turns of a conversation that does not fit are left out."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeagent.engine.prompt.truncation import fewest_dropped, turns_of, without_oldest

ROLES = st.lists(st.sampled_from(["system", "user", "assistant", "tool"]), max_size=24)


def said(roles: str) -> list[dict[str, Any]]:
    names = {"s": "system", "u": "user", "a": "assistant", "t": "tool"}
    return [{"role": names[letter], "content": str(i)} for i, letter in enumerate(roles)]


@pytest.mark.parametrize(
    ("roles", "starts"),
    [("", []), ("s", []), ("u", [0]), ("suau", [1, 3]), ("suuau", [1, 4]), ("suatatau", [1, 7]),
     ("auau", [1, 3]), ("uatu", [0, 3]), ("usu", [0, 2])],
)  # fmt: skip
def test_a_turn_begins_where_the_user_speaks_again(roles, starts):
    assert turns_of(said(roles)) == starts


@pytest.mark.parametrize(
    ("roles", "n", "left"),
    [("suauau", 1, "0345"), ("suauau", 2, "05"), ("suauau", 9, "05"), ("suatau", 1, "05"),
     ("uasau", 1, "24"), ("auau", 1, "3"), ("su", 3, "01"), ("suauau", 0, "012345")],
)  # fmt: skip
def test_system_messages_and_the_last_turn_stay(roles, n, left):
    assert "".join(m["content"] for m in without_oldest(said(roles), n)) == left.replace(" ", "")


@given(ROLES, st.integers(0, 30))
def test_what_is_left_is_whole_turns_in_their_order(roles, n):
    messages = [{"role": role, "content": i} for i, role in enumerate(roles)]
    left = without_oldest(messages, n)
    assert [m for m in messages if m in left] == left
    assert [m for m in left if m["role"] == "system"] == [
        m for m in messages if m["role"] == "system"
    ]
    starts = turns_of(messages)
    if starts:
        assert messages[starts[-1]] in left
        plain = [m["content"] for m in left if m["role"] != "system"]
        assert (
            n == 0
            or plain == []
            or plain[0] in starts
            or len(plain) == len([m for m in messages if m["role"] != "system"])
        )


@given(st.integers(0, 200), st.integers(0, 200))
def test_no_more_than_needed_is_left_out_and_few_are_tried(n_turns, needed):
    tried: list[int] = []

    def fits(n: int) -> bool:
        tried.append(n)
        return n >= needed

    assert fewest_dropped(n_turns, fits) == min(needed, max(0, n_turns - 1))
    assert len(tried) <= 9
