"""Deadlines of requests: nobody computes for a client that has given up."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from edgeagent.errors import DeadlineExceeded


def left_s(deadline_s: float | None) -> float | None:
    """Seconds until a deadline of the monotonic clock; None: no deadline. Raises: DeadlineExceeded."""
    if deadline_s is None:
        return None
    left = deadline_s - time.monotonic()
    if left <= 0:
        raise _passed()
    return left


@asynccontextmanager
async def before(deadline_s: float | None) -> AsyncIterator[None]:
    """Cancels what runs within when the deadline comes. Raises: DeadlineExceeded."""
    try:
        async with asyncio.timeout(left_s(deadline_s)) as limit:
            yield
    except TimeoutError:
        if limit.expired():
            raise _passed() from None
        raise


def _passed() -> DeadlineExceeded:
    return DeadlineExceeded(
        "The deadline of the request has passed before its answer began: give it more time with `timeout`, "
        "or send fewer requests at once."
    )
