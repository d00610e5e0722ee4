"""Sends what a run tells, from any of its events on; the run does not care who listens."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import msgspec
from litestar.types import Receive, Scope, Send

from edgeagent.api.http.stream import client_gone
from edgeagent.serving.background import BackgroundResponse

logger = logging.getLogger(__name__)

PING = b": ping\n\n"

STREAM_HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),
]


class BackgroundStreamResponse:
    """An ASGI response with the events of `run` after the first `n_seen`."""

    def __init__(
        self, run: BackgroundResponse, n_seen: int, ping_interval_s: float, write_timeout_s: float
    ) -> None:
        self._run = run
        self._n_seen = n_seen
        self._ping_interval_s = ping_interval_s
        self._write_timeout_s = write_timeout_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        produce = asyncio.create_task(self._produce(send), name="follow")
        gone = asyncio.create_task(client_gone(receive), name="follow-watch")
        try:
            await asyncio.wait({produce, gone}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            produce.cancel()
            gone.cancel()
            await asyncio.gather(produce, gone, return_exceptions=True)

    async def _produce(self, send: Send) -> None:
        try:
            await send({"type": "http.response.start", "status": 200, "headers": STREAM_HEADERS})
            while events := await self._take():
                await self._send(send, b"".join(events), more=True)
            await self._send(send, b"", more=False)
        except TimeoutError:
            logger.info("client_dropped reason=reads_too_slowly")

    async def _take(self) -> list[bytes]:
        """The next events; a comment for each interval that passes without any."""
        try:
            async with asyncio.timeout(self._ping_interval_s):
                events = await self._run.take(self._n_seen)
        except TimeoutError:
            return [PING]
        self._n_seen += len(events)
        return events

    async def _send(self, send: Send, body: bytes, *, more: bool) -> None:
        async with asyncio.timeout(self._write_timeout_s):
            await send({"type": "http.response.body", "body": body, "more_body": more})


class JsonResponse:
    """An ASGI response with an object."""

    def __init__(self, value: Any) -> None:
        self._body = msgspec.json.encode(value)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", str(len(self._body)).encode()),
        ]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": self._body, "more_body": False})
