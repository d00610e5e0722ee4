"""Omits the oldest turns of a conversation until it fits. Pure.

A turn begins with a message of a user and ends before the next one. It includes calls and their results, so
that no result is left without its call.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence
from typing import Any

Message = dict[str, Any]


def turns_of(messages: Sequence[Message]) -> list[int]:
    """The index at which each turn begins. Messages before the first turn belong to it."""
    return [
        index
        for index, message in enumerate(messages)
        if message["role"] == "user" and (index == 0 or messages[index - 1]["role"] != "user")
    ]


def without_oldest(messages: Sequence[Message], n_turns: int) -> list[Message]:
    """The messages without the first `n_turns` turns. System messages in any turn and the last turn are
    kept."""
    starts = turns_of(messages)
    n_turns = min(n_turns, len(starts) - 1)
    if n_turns <= 0:
        return list(messages)
    first = starts[n_turns]
    return [m for i, m in enumerate(messages) if i >= first or m["role"] == "system"]


def fewest_dropped(n_turns: int, fits: Callable[[int], bool]) -> int:
    """The smallest number of turns to omit so that the rest `fits`; if nothing fits, all that may be omitted.
    Calls `fits` about log2(n_turns) times."""
    n_most = max(0, n_turns - 1)
    return min(n_most, bisect_left(range(n_most + 1), True, key=fits))
