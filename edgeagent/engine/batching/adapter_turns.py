"""Which LoRA adapter the next step is computed with: llama.cpp has one for all sequences of a step.

The sequences of one adapter are a group, those without an adapter another. Groups take turns: each sequence
gets a token in each round, however many sequences the other groups have. While there is one group, as
without adapters, every step is its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from edgeagent.engine.batching.scheduler import Lane


def pick_adapter(lanes: Sequence[Lane], last_turns: Mapping[str | None, int]) -> str | None:
    """The adapter of the next step: that of the group whose last turn is longest ago, the group of the oldest
    lane among those that never had one. `last_turns`: the number of the last step of each group."""
    waiting = dict.fromkeys(lane.adapter for lane in lanes)
    return min(waiting, key=lambda adapter: last_turns.get(adapter, -1), default=None)


class AdapterTurns:
    """Remembers the turns of the groups. Engine thread only."""

    def __init__(self) -> None:
        self._last: dict[str | None, int] = {}
        self._n_turns = 0

    def lanes_of_turn(self, lanes: list[Lane]) -> list[Lane]:
        """The lanes that take part in the next step: those of one adapter."""
        first = lanes[0].adapter if lanes else None
        if all(lane.adapter == first for lane in lanes):
            return lanes
        adapter = pick_adapter(lanes, self._last)
        return [lane for lane in lanes if lane.adapter == adapter]

    def took(self, adapter: str | None) -> None:
        """A step of this group is done."""
        self._n_turns += 1
        self._last[adapter] = self._n_turns
