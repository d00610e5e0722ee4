"""When an upstream that fails is avoided. Pure: the caller passes the time.

Faults in a row are counted, however long each took: several timeouts need more time than any window. (Workers
die at once, and theirs counts deaths in a window: worker/breaker.py.)
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class UpstreamBreaker:
    """After `limit` faults without an answer in between the breaker opens for `open_s`, and again after each
    further fault. It closes with the next answer, or with a health check (`needs_check`) that goes well."""

    limit: int
    open_s: float
    _n_faults: int = 0
    _opened_s: float | None = None

    def record_fault(self, now_s: float) -> None:
        self._n_faults += 1
        if self._n_faults >= self.limit:
            self._opened_s = now_s

    def record_success(self) -> None:
        self._n_faults, self._opened_s = 0, None

    @property
    def needs_check(self) -> bool:
        return self._opened_s is not None

    def closes_in_s(self, now_s: float) -> float:
        """Seconds in which nothing is sent; 0: a check, or a request, may be."""
        return 0.0 if self._opened_s is None else max(0.0, self._opened_s + self.open_s - now_s)
