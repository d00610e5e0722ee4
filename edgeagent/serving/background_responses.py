"""Responses that are made without a connected client: their events so far, for clients that follow them.

Each is a task that publishes events. It is live until it ends; a few ended ones stay in memory for clients
that come late. Everything else is in the database.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any

import msgspec

from edgeagent.serving.response_builder import ResponseEvent

logger = logging.getLogger(__name__)

MAX_ENDED = 16


class BackgroundResponse:
    """One response in the background. `show` gives the response object so far. Event loop's thread only."""

    def __init__(
        self, run_id: str, owner: str, show: Callable[[], dict[str, Any]],
        conversation_id: str | None = None,
    ) -> None:  # fmt: skip
        self.id = run_id
        self.owner = owner
        self.conversation_id = conversation_id
        self.show = show
        self.is_stopping = False  # the daemon is ending, no client has cancelled it
        self.has_ended = False
        self._events: list[ResponseEvent] = []
        self._n_dropped = 0  # events before the first in `_events`
        self._changed = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self, work: Callable[[], Awaitable[None]]) -> None:
        self._task = asyncio.create_task(self._run_to_end(work), name=f"run-{self.id}")

    def publish(self, events: Sequence[ResponseEvent]) -> None:
        """Append events."""
        if events:
            self._events += events
            self._wake()

    async def take(self, n_seen: int) -> tuple[list[ResponseEvent], int]:
        """The events after the first `n_seen`, at least one, and the number of events seen then; no events
        once the response has ended."""
        while self._n_events <= n_seen and not self.has_ended:
            await self._changed.wait()
        return self._events[max(0, n_seen - self._n_dropped) :], self._n_events

    @property
    def _n_events(self) -> int:
        return self._n_dropped + len(self._events)

    async def cancel(self) -> None:
        """End it, and wait for its end."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})

    def drop(self) -> None:
        """Forget all events. Clients that follow now receive an error in place of what they lack."""
        body = {
            "type": "error", "sequence_number": self._n_events, "code": "erased", "param": None,
            "message": f"{self.id} was deleted: nothing of it is stored.",
        }  # fmt: skip
        self._n_dropped = self._n_events
        self._events = [ResponseEvent("error", msgspec.json.encode(body))]
        self._wake()

    async def _run_to_end(self, work: Callable[[], Awaitable[None]]) -> None:
        try:
            await work()
        except Exception:
            logger.exception("background_failed id=%s", self.id)
        finally:
            self.has_ended = True
            self._wake()

    def _wake(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()


class BackgroundResponses:
    """The responses that are live or have just ended. `close()` may be called twice."""

    def __init__(self) -> None:
        self._runs: dict[str, BackgroundResponse] = {}

    def start(self, run: BackgroundResponse, work: Callable[[], Awaitable[None]]) -> None:
        ended = [one.id for one in self._runs.values() if one.has_ended]
        for run_id in ended[: -MAX_ENDED or None]:
            del self._runs[run_id]
        self._runs[run.id] = run
        run.start(work)

    def find(self, owner: str, run_id: str) -> BackgroundResponse | None:
        """A response of this owner that is live or has just ended."""
        run = self._runs.get(run_id)
        return run if run is not None and run.owner == owner else None

    def live(self, owner: str, run_id: str) -> BackgroundResponse | None:
        run = self.find(owner, run_id)
        return run if run is not None and not run.has_ended else None

    async def end(self, owner: str, run_id: str) -> None:
        """Cancel a response of this owner if it is live, and forget it."""
        run = self.find(owner, run_id)
        if run is not None:
            await run.cancel()
            self._runs.pop(run_id, None)

    def ids(self, owner: str | None) -> list[str]:
        """Ids of an owner's responses; None: of all owners."""
        return [run.id for run in self._runs.values() if owner in (None, run.owner)]

    def ended_in(self, conversation_id: str) -> list[str]:
        """Ids of the ended responses of a conversation."""
        found = (run for run in self._runs.values() if run.conversation_id == conversation_id)
        return [run.id for run in found if run.has_ended]

    async def forget(self, run_ids: Iterable[str]) -> None:
        """Cancel these responses and drop their events. Returns once they have ended."""
        for run_id in set(run_ids):
            if (run := self._runs.get(run_id)) is not None:
                await run.cancel()
                run.drop()
                self._runs.pop(run_id, None)

    async def close(self) -> None:
        """Cancel all live responses."""
        live = [run for run in self._runs.values() if not run.has_ended]
        for run in live:
            run.is_stopping = True
        await asyncio.gather(*(run.cancel() for run in live))
        self._runs.clear()
