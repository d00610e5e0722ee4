"""Sends one transcription, whole or as events, and gives up the work when the client leaves.

Nothing is sent before the recording is known to be whole, so that a bad file is a status and not an event.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from typing import Protocol

from litestar.types import Receive, Scope, Send

from edgeagent.api.http.context import context_of
from edgeagent.api.http.disconnect import run_until_gone
from edgeagent.api.http.errors import encoded, status_of, translate
from edgeagent.api.http.shutdown import shutting_down
from edgeagent.errors import EdgeAgentError
from edgeagent.serving.transcription import TranscriptionRequest
from edgeagent.speech.segments import Segment, Transcript

logger = logging.getLogger(__name__)

PING = b": hearing\n\n"


class TranscriptWriter(Protocol):
    """Puts a transcript into the words of one endpoint. `content_type` is that of the whole."""

    content_type: bytes

    def opening(self, transcript: Transcript) -> bytes:
        """What a stream begins with."""
        ...

    def events(self, segments: Iterable[Segment], language: str) -> bytes:
        """A stream's events for some segments."""
        ...

    def last_events(self, transcript: Transcript) -> bytes: ...

    def error_events(self, error: EdgeAgentError) -> bytes: ...

    def whole(self, transcript: Transcript) -> bytes: ...


class TranscriptionResponse:
    """An ASGI response around one transcription. `keep` stores it and gives its id."""

    def __init__(
        self,
        request: TranscriptionRequest,
        writer: TranscriptWriter,
        *,
        keep: Callable[[TranscriptionRequest], Awaitable[str]] | None = None,
        is_stream: bool,
        ping_interval_s: float,
        write_timeout_s: float,
    ) -> None:
        self._request = request
        self._writer = writer
        self._keep = keep
        self._is_stream = is_stream
        self._ping_interval_s = ping_interval_s
        self._write_timeout_s = write_timeout_s
        self._is_started = False
        self._scope: Scope | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._scope = scope
        shutdown = context_of(scope).shutdown
        try:
            ending = await run_until_gone(
                self._produce(send), receive, name="transcription", shutdown=shutdown
            )
            if ending == "stopping":
                await self._fail(send, shutting_down())
        finally:
            # However this ended, the request holds nothing when the response is over.
            await self._request.release()

    async def _produce(self, send: Send) -> None:
        try:
            await self._request.begin()
            if self._is_stream:
                await self._stream(send)
            else:
                while await self._request.take() is not None:
                    pass
                await self._store()
                body = self._writer.whole(self._request.transcript())
                kind = (b"content-type", self._writer.content_type)
                length = (b"content-length", str(len(body)).encode())
                kept = self._request.kept_id
                stored = [(b"x-edgeagent-transcript", kept.encode())] if kept is not None else []
                await self._start(send, 200, [kind, length, *stored])
                await self._send(send, body, more=False)
        except Exception as exc:
            await self._fail(send, exc)

    async def _store(self) -> None:
        """Before the end is sent: a transcript that is said to be stored is on disk."""
        if self._keep is not None:
            self._request.kept_id = await self._keep(self._request)

    async def _stream(self, send: Send) -> None:
        await self._start(
            send,
            200,
            [
                (b"content-type", b"text/event-stream; charset=utf-8"),
                (b"cache-control", b"no-cache"),
                (b"x-accel-buffering", b"no"),
            ],
        )
        if opening := self._writer.opening(self._request.transcript()):
            await self._send(send, opening)
        take = asyncio.ensure_future(self._request.take())
        try:
            while True:
                done, _ = await asyncio.wait({take}, timeout=self._ping_interval_s)
                if not done:
                    await self._send(send, PING)
                    continue
                segments = take.result()
                if segments is None:
                    break
                if segments:
                    language = self._request.language
                    await self._send(send, self._writer.events(segments, language))
                take = asyncio.ensure_future(self._request.take())
        finally:
            take.cancel()
            with suppress(asyncio.CancelledError, Exception):
                await take
        await self._store()
        last = self._writer.last_events(self._request.transcript())
        await self._send(send, last, more=False)

    async def _start(self, send: Send, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        await send({"type": "http.response.start", "status": status, "headers": headers})
        self._is_started = True

    async def _send(self, send: Send, body: bytes, *, more: bool = True) -> None:
        async with asyncio.timeout(self._write_timeout_s):
            await send({"type": "http.response.body", "body": body, "more_body": more})

    async def _fail(self, send: Send, exc: Exception) -> None:
        """A status before the first byte, an event after it. A client that does not read gets neither."""
        if isinstance(exc, TimeoutError):
            logger.info("client_dropped reason=reads_too_slowly")
            return
        error = translate(exc)
        self._request.record.status = status_of(error)
        if self._is_started:
            with suppress(TimeoutError):
                await self._send(send, self._writer.error_events(error), more=False)
            return
        status, headers, body = encoded(error, self._scope)
        await self._start(send, status, headers)
        await self._send(send, body, more=False)
