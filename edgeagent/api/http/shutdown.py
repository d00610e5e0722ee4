"""The end of the daemon, as responses see it: time to finish, then an error that says it is stopping.

The server calls `begin` when that time is over. Responses wait for `begun` beside their work, and end with
an error in the shape of their path; others are cancelled.
"""

from __future__ import annotations

import asyncio

from edgeagent.errors import ShuttingDown

RETRY_AFTER_S = 5.0


class Shutdown:
    """Event loop's thread only."""

    def __init__(self) -> None:
        self._event = asyncio.Event()

    @property
    def has_begun(self) -> bool:
        return self._event.is_set()

    def begin(self) -> None:
        self._event.set()

    async def begun(self) -> None:
        await self._event.wait()


def shutting_down() -> ShuttingDown:
    return ShuttingDown(
        "The server is being stopped, and this was not finished: send the request again.",
        retry_after_s=RETRY_AFTER_S,
    )
