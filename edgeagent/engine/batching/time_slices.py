"""Spreads long work of the engine thread over several steps, so that other answers do not wait for it.

Such work is a generator that yields where it may be interrupted, and returns its result.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from typing import Any, TypeVar, cast

T = TypeVar("T")
Sliced = Generator[None, None, T]

STEP_S = 0.004


def finished(work: Sliced[T]) -> T:
    """Do all of the work at once and return its result."""
    while True:
        try:
            next(work)
        except StopIteration as end:
            return cast("T", end.value)


class TimeSlice:
    """The time in one step for all such work together."""

    def __init__(
        self, length_s: float = STEP_S, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._length_s = length_s
        self._clock = clock
        self._ends_s = 0.0

    def begin(self) -> None:
        self._ends_s = self._clock() + self._length_s

    def go_on(self, work: Sliced[Any]) -> Any:
        """Continue the work until it ends or the time is up. Returns its result, or None. The part up to the
        next `yield` is done in any case."""
        while True:
            try:
                next(work)
            except StopIteration as end:
                return end.value
            if self._clock() >= self._ends_s:
                return None
