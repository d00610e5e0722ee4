"""A whole JSON text for an answer whose tokens run out, instead of one that is cut.

    room left:   |------- free -------|-- each token is tried --|- way out -|
                                                                ^ taken here

The way out is the shortest that the grammar has (`completion`). While there is room nothing is looked at;
near the end each drawn token is tried first, and one behind which no way out would fit gives way to that
before it. Where none fits, since even the shortest answer has more tokens than it may, the one is taken that
is over first, and the answer has more tokens than it should: it is valid all the same, and none of them is
computed. It ends with `length`, since the model had more to say.
"""

from __future__ import annotations

from typing import Protocol

from edgeagent.engine.batching.time_slices import Sliced


class Closable(Protocol):
    """What an ending asks of a constraint."""

    def way_out(self, token: int | None) -> Sliced[list[int] | None]: ...


class JsonCompletion:
    """When one answer must be closed. Engine thread only.

    `growth` is how many tokens one token may add to the way out.
    """

    def __init__(self, max_new: int, growth: int = 16) -> None:
        self._growth = growth
        self._look_at = max_new

    def instead(self, held: Closable, token: int, room: int) -> Sliced[list[int] | None]:
        """What to say instead of a drawn token, and be done; None: it may stay. `room` counts the tokens that
        the answer may still have, that one included."""
        if room > self._look_at:
            return None
        after = yield from held.way_out(token)
        if after is not None and len(after) < room:
            slack = room - 1 - len(after)
            self._look_at = room - 1 - slack // (1 + self._growth)
            return None
        now = yield from held.way_out(None)
        if now is None or (after is not None and len(after) < len(now)):
            return None  # what was drawn leads nearer to the end
        if after is None and len(now) + self._growth < room:
            return None  # it was not found in time, and there is time yet
        return now
