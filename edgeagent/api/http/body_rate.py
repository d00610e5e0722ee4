"""The rate at which bodies are read from all connections together, so that the daemon also answers.

Reading and discarding a body costs the event loop several milliseconds for each megabyte. Hundreds of clients
that send large bodies could use all its time, whether or not their requests are refused. Bytes beyond the
first `FREE_BYTES` of each body therefore take from one token bucket; when it is empty, connections pause in
turn, and the kernel makes their clients wait. Small requests never wait, and one large body fits at once.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from edgeagent.api.http.token_bucket import TokenBucket

FREE_BYTES = 64 << 10
BYTES_PER_S = 24 << 20
BURST_BYTES = 32 << 20


class BodyRate:
    """A token bucket of bytes for all connections. Event loop's thread only."""

    def __init__(
        self,
        bytes_per_s: float = BYTES_PER_S,
        burst_bytes: float = BURST_BYTES,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._bucket = TokenBucket(burst_bytes, bytes_per_s, clock)

    def take(self, n_bytes: int) -> float:
        """Count bytes that were read. Returns the seconds for which their connection should not be read.

        Each call that finds the bucket empty adds to its debt, so connections resume one after the other,
        in the order in which they were paused.
        """
        self._bucket.take(n_bytes)
        return self._bucket.wait_s(0)
