"""The recordings that wait in a worker, and whose window is heard next. Pure but for the jobs' own work."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

Work = TypeVar("Work")


class Job(Generic[Work]):
    """One recording: `parts` as they arrive, then `steps` of work."""

    def __init__(self, request_id: int, n_bytes: int, priority: int) -> None:
        self.request_id = request_id
        self.n_bytes = n_bytes
        self.priority = priority
        self.is_cancelled = False
        self.data = bytearray()
        self.abandon: Callable[[], None] = lambda: (
            None
        )  # lets a step fail that waits for the daemon
        self.steps: Iterator[Work] | None = None
        self.n_steps = 0

    @property
    def is_whole(self) -> bool:
        return len(self.data) >= self.n_bytes


class JobQueue(Generic[Work]):
    """Which job takes the next step: the lowest priority, then the fewest steps, then the first to come.

    A job that has begun gives way between steps. Main thread only.
    """

    def __init__(self) -> None:
        self._jobs: dict[int, tuple[int, Job[Work]]] = {}
        self._order = itertools.count()

    def __len__(self) -> int:
        return len(self._jobs)

    def add(self, job: Job[Work]) -> None:
        self._jobs[job.request_id] = (next(self._order), job)

    def remove(self, request_id: int) -> None:
        self._jobs.pop(request_id, None)

    def next(self) -> Job[Work] | None:
        """The job that is to take a step; those that were cancelled first. None: there is no job."""
        ranked = [
            (not job.is_cancelled, job.priority, job.n_steps, order, job)
            for order, job in self._jobs.values()
        ]
        return min(ranked, key=lambda found: found[:4])[4] if ranked else None
