"""Sends the events of what goes on in the background, from any event on."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Protocol

from litestar.types import Receive, Scope, Send

from edgeagent.api.http.disconnect import run_until_gone
from edgeagent.api.http.response_sender import EVENT_STREAM, ResponseSender, log_slow_reader
from edgeagent.serving.response_builder import ResponseEvent

PING = b": ping\n\n"


def event_bytes(events: Iterable[ResponseEvent]) -> bytes:
    """Events as server-sent events."""
    return b"".join(
        b"event: " + event.kind.encode() + b"\ndata: " + event.data + b"\n\n" for event in events
    )


class EventSource(Protocol):
    """Something that goes on without its clients: a response in the background, a transcription job."""

    async def take(self, n_seen: int) -> tuple[list[ResponseEvent], int]:
        """The events after the first `n_seen`, at least one, and the number seen then; none at the end."""
        ...


class BackgroundStreamResponse:
    """An ASGI response with the events of `running` after the first `n_seen`."""

    def __init__(
        self,
        running: EventSource,
        n_seen: int,
        ping_interval_s: float,
        write_timeout_s: float,
    ) -> None:
        self._running = running
        self._n_seen = n_seen
        self._ping_interval_s = ping_interval_s
        self._write_timeout_s = write_timeout_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        sender = ResponseSender(scope, send, self._write_timeout_s)
        await run_until_gone(self._produce(sender), receive, name="background-stream")

    async def _produce(self, sender: ResponseSender) -> None:
        try:
            await sender.start_stream(EVENT_STREAM)
            while events := await self._take():
                await sender.piece(events)
            await sender.piece(b"", more=False)
        except TimeoutError:
            log_slow_reader()

    async def _take(self) -> bytes:
        """The next events; a comment for each interval that passes without any; empty at the end."""
        try:
            async with asyncio.timeout(self._ping_interval_s):
                events, self._n_seen = await self._running.take(self._n_seen)
        except TimeoutError:
            return PING
        return event_bytes(events)
