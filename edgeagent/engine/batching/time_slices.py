"""Work of the engine thread that is done a little in each step, so that no answer waits long for another's.

Such work is a generator that yields wherever it may be left for a while, and returns its result.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from typing import Any, TypeVar, cast

T = TypeVar("T")
Sliced = Generator[None, None, T]

STEP_S = 0.004


def finished(work: Sliced[T]) -> T:
    """The result of all of the work, done at once."""
    while True:
        try:
            next(work)
        except StopIteration as end:
            return cast("T", end.value)


class TimeSlice:
    """The time that such work may take of one step, all of it together."""

    def __init__(
        self, length_s: float = STEP_S, clock: Callable[[], float] = time.perf_counter
    ) -> None:
        self._length_s = length_s
        self._clock = clock
        self._ends_s = 0.0

    def begin(self) -> None:
        self._ends_s = self._clock() + self._length_s

    def go_on(self, work: Sliced[Any]) -> Any:
        """Work until there is a result, which is returned, or the time is up: None. What comes before its
        first `yield` is done in any case."""
        while True:
            try:
                next(work)
            except StopIteration as end:
                return end.value
            if self._clock() >= self._ends_s:
                return None
