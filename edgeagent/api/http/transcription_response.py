"""Sends one transcription, whole or as events, and gives up the work when the client leaves.

Nothing is sent before the recording is known to be whole, so that a bad file is a status and not an event.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from typing import Protocol

from litestar.types import Receive, Scope, Send

from edgeagent.api.http.disconnect import run_until_gone
from edgeagent.api.http.errors import status_of, translate
from edgeagent.api.http.request_context import context_of
from edgeagent.api.http.response_sender import EVENT_STREAM, ResponseSender, log_slow_reader
from edgeagent.api.http.shutdown import shutting_down
from edgeagent.errors import EdgeAgentError
from edgeagent.serving.transcription import TranscriptionRequest
from edgeagent.speech.segments import Segment, Transcript

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

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        shutdown = context_of(scope).shutdown
        sender = ResponseSender(scope, send, self._write_timeout_s)
        try:
            ending = await run_until_gone(
                self._produce(sender), receive, name="transcription", shutdown=shutdown
            )
            if ending == "stopping" and not sender.is_over:
                await self._fail(sender, shutting_down())
        finally:
            # However this ended, the request holds nothing when the response is over.
            await self._request.release()

    async def _produce(self, sender: ResponseSender) -> None:
        try:
            await self._request.begin()
            if self._is_stream:
                await self._stream(sender)
            else:
                while await self._request.take() is not None:
                    pass
                await self._store()
                body = self._writer.whole(self._request.transcript())
                kept = self._request.kept_id
                stored = [(b"x-edgeagent-transcript", kept.encode())] if kept is not None else []
                await sender.whole(self._writer.content_type, body, stored)
        except Exception as exc:
            await self._fail(sender, exc)

    async def _store(self) -> None:
        """Before the end is sent: a transcript that is said to be stored is on disk."""
        if self._keep is not None:
            self._request.kept_id = await self._keep(self._request)

    async def _stream(self, sender: ResponseSender) -> None:
        await sender.start_stream(EVENT_STREAM)
        if opening := self._writer.opening(self._request.transcript()):
            await sender.piece(opening)
        take = asyncio.ensure_future(self._request.take())
        try:
            while True:
                done, _ = await asyncio.wait({take}, timeout=self._ping_interval_s)
                if not done:
                    await sender.piece(PING)
                    continue
                segments = take.result()
                if segments is None:
                    break
                if segments:
                    language = self._request.language
                    await sender.piece(self._writer.events(segments, language))
                take = asyncio.ensure_future(self._request.take())
        finally:
            take.cancel()
            with suppress(asyncio.CancelledError, Exception):
                await take
        await self._store()
        last = self._writer.last_events(self._request.transcript())
        await sender.piece(last, more=False)

    async def _fail(self, sender: ResponseSender, exc: Exception) -> None:
        if isinstance(exc, TimeoutError):
            log_slow_reader()
            return
        error = translate(exc)
        self._request.record.status = status_of(error)
        await sender.fail(error, self._writer.error_events)
