"""A bounded queue with a line for each key, served in turn, so that a key delays only its own requests."""

from __future__ import annotations

import threading
from collections import OrderedDict, deque
from typing import Generic, TypeVar

T = TypeVar("T")


class FairQueue(Generic[T]):
    """Any thread may `put` and `get`. After `close()`, which may be called twice, `get` returns None.

    The bound applies to all lines together. When it is reached, a key whose line is shorter than the longest
    takes the place of the newest item of the longest line.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._lines: OrderedDict[str, deque[T]] = OrderedDict()  # the next to be served first
        self._n = 0
        self._condition = threading.Condition()
        self._is_closed = False

    @property
    def is_empty(self) -> bool:
        """Whether `get` would wait. Another thread may put an item right after."""
        return self._n == 0

    def put(self, key: str, item: T) -> tuple[bool, T | None]:
        """Whether the item was queued, and which other item lost its place to it."""
        with self._condition:
            lost = None
            if self._n >= self._limit:
                n_own = len(self._lines.get(key, ()))
                longest = max(self._lines, key=lambda k: len(self._lines[k]), default=key)
                if longest == key or len(self._lines[longest]) <= n_own + 1:
                    return False, None
                lost = self._lines[longest].pop()
                self._n -= 1
            self._lines.setdefault(key, deque()).append(item)
            self._n += 1
            self._condition.notify()
            return True, lost

    def get(self) -> T | None:
        """The next item, once there is one; None when the queue is closed."""
        with self._condition:
            while not self._n and not self._is_closed:
                self._condition.wait()
            if self._is_closed:
                return None
            key, line = next((k, v) for k, v in self._lines.items() if v)
            item = line.popleft()
            self._n -= 1
            del self._lines[key]
            if line:
                self._lines[key] = line  # after all others
            for other in [k for k, v in self._lines.items() if not v]:
                del self._lines[other]
            return item

    def close(self) -> None:
        with self._condition:
            self._is_closed = True
            self._condition.notify_all()
