"""Completes the JSON of an answer whose tokens run out, instead of cutting it.

    room left:   |------- free -------|-- each token is tried --|-- end --|
                                                                ^ taken here

The end is the shortest that the grammar allows (`shortest_completion`). While there is room, nothing is
searched. Near the bound each drawn token is tried first; a token after which no end would fit is replaced by
the end before it. If even the shortest end does not fit, it is taken all the same: the answer then is valid
JSON with more tokens than `max_tokens`, none of which is computed. It ends with `length`.
"""

from __future__ import annotations

from typing import Protocol

from edgeagent.engine.batching.time_slices import Sliced


class Closable(Protocol):
    """What is needed of a constraint."""

    def way_out(self, token: int | None) -> Sliced[list[int] | None]: ...


class JsonCompletion:
    """Decides when one answer must be completed. Engine thread only.

    `growth` is how many tokens one token may add to the end.
    """

    def __init__(self, max_new: int, growth: int = 16) -> None:
        self._growth = growth
        self._look_at = max_new

    def instead(self, held: Closable, token: int, room: int) -> Sliced[list[int] | None]:
        """The tokens that end the answer instead of a drawn token; None if the token may stay. `room` is the
        number of tokens that the answer may still have, including the drawn one."""
        if room > self._look_at:
            return None
        after = yield from held.way_out(token)
        if after is not None and len(after) < room:
            slack = room - 1 - len(after)
            self._look_at = room - 1 - slack // (1 + self._growth)
            return None
        now = yield from held.way_out(None)
        if now is None or (after is not None and len(after) < len(now)):
            return None  # the drawn token leads nearer to the end
        if after is None and len(now) + self._growth < room:
            return None  # no end was found in time, and there is room to search again
        return now
