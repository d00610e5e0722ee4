"""The end of the daemon, as responses see it: a while to finish, then each says that it was cut off.

The server calls `begin` once its grace is over. Whoever answers waits for `begun` beside its work, and
ends with an error in the words of its path; what cannot, is cancelled.
"""

from __future__ import annotations

import asyncio

from litestar.types import Scope

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


def shutdown_of(scope: Scope) -> Shutdown:
    """That of the server which received a request; without a server, one that never begins."""
    found = (scope.get("state") or {}).get("stopping")
    return found if isinstance(found, Shutdown) else Shutdown()


def shutting_down() -> ShuttingDown:
    return ShuttingDown(
        "The server is being stopped, and this was not finished: send the request again.",
        retry_after_s=RETRY_AFTER_S,
    )
