"""Sends one response: its head, its pieces, and at most one error, as a status or as the end of a stream."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from contextlib import suppress

from litestar.types import Message, Scope, Send

from edgeagent.api.http.body_slices import body_slices
from edgeagent.api.http.errors import encoded
from edgeagent.api.http.request_context import context_of
from edgeagent.errors import EdgeAgentError

logger = logging.getLogger(__name__)

Headers = Iterable[tuple[bytes, bytes]]
EVENT_STREAM = b"text/event-stream; charset=utf-8"


class ResponseSender:
    """The sending half of an ASGI response. One for each response, event loop's thread only.

    `is_over`: the last piece has been sent. A piece raises TimeoutError if the client does not read for
    `write_timeout_s`.
    """

    def __init__(self, scope: Scope, send: Send, write_timeout_s: float) -> None:
        self._scope = scope
        self._send = send
        self._write_timeout_s = write_timeout_s
        self._context = context_of(scope)
        self._connection = self._context.connection
        self.is_started = False
        self.is_over = False

    async def start(self, status: int, headers: Headers) -> None:
        head = list(headers)
        await self._send({"type": "http.response.start", "status": status, "headers": head})
        self.is_started = True

    async def start_stream(self, content_type: bytes, headers: Headers = ()) -> None:
        """The head of a stream, which nothing on the way should cache or collect."""
        await self.start(
            200,
            [
                (b"content-type", content_type),
                (b"cache-control", b"no-cache"),
                (b"x-accel-buffering", b"no"),
                *headers,
            ],
        )

    async def piece(self, body: bytes, *, more: bool = True) -> None:
        # Blocks only while the client reads slower than the buffers allow.
        for part, has_more in body_slices(body):
            message: Message = {
                "type": "http.response.body", "body": part, "more_body": has_more or more
            }  # fmt: skip
            if self._connection is not None and self._connection.is_reading:
                await self._send(
                    message
                )  # needs no timer, which a stream would have for each token
                continue
            async with asyncio.timeout(self._write_timeout_s):
                await self._send(message)
        self.is_over = not more

    @property
    def can_pass(self) -> bool:
        """Whether a piece of the stream can be passed on at once: the client reads what it is sent, and no
        layer has to see the pieces."""
        connection = self._connection
        return connection is not None and connection.takes_chunks and not self._context.is_recorded

    def pass_on(self, body: bytes) -> None:
        """Send a piece of the stream from a callback, where `can_pass`. It is given to the socket before
        this returns, past the layers, which change the head and the end of a response only."""
        assert self._connection is not None, "can_pass says so"
        self._connection.write_chunk(body)

    async def whole(self, content_type: bytes, body: bytes, headers: Headers = ()) -> None:
        """A response of one piece."""
        length = (b"content-length", str(len(body)).encode())
        await self.start(200, [(b"content-type", content_type), length, *headers])
        await self.piece(body, more=False)

    async def fail(self, error: EdgeAgentError, events: Callable[[EdgeAgentError], bytes]) -> None:
        """Send an error: a status before the first byte, else `events` as the end of the stream."""
        if self.is_started:
            context_of(self._scope).error = error
            with suppress(TimeoutError):
                await self.piece(events(error), more=False)
            return
        status, headers, body = encoded(error, self._scope)
        await self.start(status, headers)
        await self.piece(body, more=False)


def log_slow_reader() -> None:
    """Log that a client is dropped because it does not read. It is sent nothing."""
    logger.info("client_dropped reason=reads_too_slowly")
