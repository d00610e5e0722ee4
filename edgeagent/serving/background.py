"""Answers that go on without their client: what they have told so far, for who comes to listen.

Each is a task that publishes events. It is live until it ends; a few that have ended are remembered for
listeners who come late, everything else is in the database.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any

import msgspec

logger = logging.getLogger(__name__)

MAX_ENDED = 16


class BackgroundResponse:
    """One of them. `show` gives what it is now. Event loop's thread only."""

    def __init__(
        self, run_id: str, owner: str, show: Callable[[], dict[str, Any]],
        conversation_id: str | None = None,
    ) -> None:  # fmt: skip
        self.id = run_id
        self.owner = owner
        self.conversation_id = conversation_id
        self.show = show
        self.is_stopping = False  # the daemon ends, nobody has asked for it
        self.has_ended = False
        self._events: list[bytes] = []
        self._changed = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self, work: Callable[[], Awaitable[None]]) -> None:
        self._task = asyncio.create_task(self._to_the_end(work), name=f"run-{self.id}")

    def publish(self, events: Sequence[bytes]) -> None:
        """Tell more, in order."""
        if events:
            self._events += events
            self._wake()

    async def take(self, n_seen: int) -> list[bytes]:
        """What comes after the first `n_seen` events, at least one; empty once it has ended."""
        while len(self._events) <= n_seen and not self.has_ended:
            await self._changed.wait()
        return self._events[n_seen:]

    async def cancel(self) -> None:
        """End it, and wait until it has."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})

    def drop(self) -> None:
        """Forget what was told. Who listens at this moment is told that it has gone, and nothing else."""
        n = len(self._events)
        body = {
            "type": "error", "sequence_number": n, "code": "erased", "param": None,
            "message": f"{self.id} was deleted: nothing of it is stored.",
        }  # fmt: skip
        event = b"event: error\ndata: " + msgspec.json.encode(body) + b"\n\n"
        self._events = [*([b""] * n), event]
        self._wake()

    async def _to_the_end(self, work: Callable[[], Awaitable[None]]) -> None:
        try:
            await work()
        except Exception:
            logger.exception("run_failed id=%s", self.id)
        finally:
            self.has_ended = True
            self._wake()

    def _wake(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()


class BackgroundResponses:
    """Those that are live or have just ended. `close()` may be called twice."""

    def __init__(self) -> None:
        self._runs: dict[str, BackgroundResponse] = {}

    def start(self, run: BackgroundResponse, work: Callable[[], Awaitable[None]]) -> None:
        ended = [one.id for one in self._runs.values() if one.has_ended]
        for run_id in ended[: -MAX_ENDED or None]:
            del self._runs[run_id]
        self._runs[run.id] = run
        run.start(work)

    def find(self, owner: str, run_id: str) -> BackgroundResponse | None:
        """One of this owner's that is live or has just ended."""
        run = self._runs.get(run_id)
        return run if run is not None and run.owner == owner else None

    def live(self, owner: str, run_id: str) -> BackgroundResponse | None:
        run = self.find(owner, run_id)
        return run if run is not None and not run.has_ended else None

    async def end(self, owner: str, run_id: str) -> None:
        """Cancel one of this owner's if it is live, and forget it."""
        run = self.find(owner, run_id)
        if run is not None:
            await run.cancel()
            self._runs.pop(run_id, None)

    def ids(self, owner: str | None) -> list[str]:
        """Those of an owner; None: all."""
        return [run.id for run in self._runs.values() if owner in (None, run.owner)]

    def ended_in(self, conversation_id: str) -> list[str]:
        """Those that have ended, of one conversation."""
        found = (run for run in self._runs.values() if run.conversation_id == conversation_id)
        return [run.id for run in found if run.has_ended]

    async def forget(self, run_ids: Iterable[str]) -> None:
        """Cancel those that are live, and drop what each has told. Returns once they have ended."""
        for run_id in set(run_ids):
            if (run := self._runs.get(run_id)) is not None:
                await run.cancel()
                run.drop()
                self._runs.pop(run_id, None)

    async def close(self) -> None:
        """End all of them."""
        live = [run for run in self._runs.values() if not run.has_ended]
        for run in live:
            run.is_stopping = True
        await asyncio.gather(*(run.cancel() for run in live))
        self._runs.clear()
