"""The rate at which bodies are read from all connections together, so that the daemon also answers.

Reading and discarding a body costs the event loop several milliseconds for each megabyte. Hundreds of clients
that send large bodies could use all its time, whether or not their requests are refused. Bytes beyond the
first `FREE_BYTES` of each body therefore take from one token bucket; when it is empty, connections pause in
turn, and the kernel makes their clients wait. Small requests never wait, and one large body fits at once.
"""

from __future__ import annotations

FREE_BYTES = 64 << 10
BYTES_PER_S = 24 << 20
BURST_BYTES = 32 << 20


class BodyRate:
    """A token bucket of bytes. The clock (monotonic seconds) is passed in. Event loop's thread only."""

    def __init__(self, bytes_per_s: float = BYTES_PER_S, burst_bytes: float = BURST_BYTES) -> None:
        self._bytes_per_s = bytes_per_s
        self._burst_bytes = burst_bytes
        self._level = float(burst_bytes)
        self._at_s: float | None = None

    def take(self, n_bytes: int, now_s: float) -> float:
        """Count bytes that were read. Returns the seconds for which their connection should not be read.

        Each call that finds the bucket empty adds to its debt, so connections resume one after the other,
        in the order in which they were paused.
        """
        passed_s = 0.0 if self._at_s is None else max(0.0, now_s - self._at_s)
        self._at_s = now_s
        self._level = min(self._burst_bytes, self._level + passed_s * self._bytes_per_s) - n_bytes
        return max(0.0, -self._level) / self._bytes_per_s
