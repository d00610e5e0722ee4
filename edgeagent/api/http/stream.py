"""Sends one answer, streamed or whole, and releases it as soon as the client leaves.

Nothing is sent before the first tokens, so that an error until then is a status code and not an event. A
stream that stays silent for longer, during a long prefill, sends pings.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from types import MappingProxyType
from typing import Protocol

from litestar.types import Receive, Scope, Send

from edgeagent.api.http.context import context_of
from edgeagent.api.http.disconnect import run_until_gone
from edgeagent.api.http.errors import encoded, status_of, translate
from edgeagent.api.http.shutdown import shutting_down
from edgeagent.errors import EdgeAgentError
from edgeagent.serving.answer import Answer
from edgeagent.types.answer import PromptFacts, TokenChunk

logger = logging.getLogger(__name__)


class Writer(Protocol):
    """Encodes chunks for one endpoint. One for each response.

    `content_type` is that of a stream. A silent stream sends `ping` at intervals; None: nothing.
    """

    content_type: bytes
    ping: bytes | None

    def opening(self, facts: PromptFacts | None) -> bytes:
        """The beginning of a stream, before any chunk or ping. `facts` are those of the prompt, if known."""
        ...

    def events(self, chunks: list[TokenChunk]) -> bytes:
        """The events of some chunks."""
        ...

    def last_events(self, answer: Answer) -> bytes:
        """The end of a stream."""
        ...

    def error_events(self, error: EdgeAgentError) -> bytes:
        """The end of a stream that fails after its beginning."""
        ...

    def collect(self, chunks: list[TokenChunk]) -> None:
        """Keep chunks for `whole`."""
        ...

    def whole(self, answer: Answer) -> bytes:
        """The body of an answer that is not streamed."""
        ...


class AnswerResponse:
    """An ASGI response around one answer.

    `keep` stores it before its end is sent: an answer that says it is stored is on disk. `ended` is called
    however it ended, after its release. `params` maps names of fields in a chat to those of this endpoint.
    """

    def __init__(
        self,
        answer: Answer,
        writer: Writer,
        *,
        keep: Callable[[], Awaitable[None]] | None = None,
        ended: Callable[[], None] = lambda: None,
        params: Mapping[str, str] = MappingProxyType({}),
        is_stream: bool,
        ping_interval_s: float,
        write_timeout_s: float,
    ) -> None:
        self._answer = answer
        self._writer = writer
        self._keep = keep
        self._ended = ended
        self._params = params
        self._is_stream = is_stream
        self._ping_interval_s = ping_interval_s
        self._write_timeout_s = write_timeout_s
        self._scope: Scope | None = None
        self._is_started = False
        self._is_over = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._scope = scope
        context = context_of(scope)
        try:
            ending = await run_until_gone(
                self._produce(send), receive, name="answer", shutdown=context.shutdown
            )
            if ending == "stopping" and not self._is_over:
                await self._fail(send, shutting_down())
        finally:
            # However this ended, the answer holds nothing when the response is over.
            await self._answer.release()
            self._ended()
            context.charge(self._answer.n_tokens)

    async def _produce(self, send: Send) -> None:
        try:
            await self._answer.begin()
            if self._is_stream:
                await self._stream(send, self._answer)
            else:
                await self._whole(send, self._answer)
        except Exception as exc:
            await self._fail(send, exc)

    async def _whole(self, send: Send, answer: Answer) -> None:
        while chunks := await answer.take():
            self._writer.collect(chunks)
        if self._keep is not None:
            await self._keep()
        body = self._writer.whole(answer)
        length = (b"content-length", str(len(body)).encode())
        kind = (b"content-type", b"application/json")
        await self._start(send, 200, [kind, length, *own_headers(answer.prompt_facts)])
        await self._send(send, body, more=False)

    async def _stream(self, send: Send, answer: Answer) -> None:
        while chunks := await self._take(send, answer):
            if self._keep is not None:
                self._writer.collect(chunks)
            await self._start_stream(send)
            await self._send(send, self._writer.events(chunks))
        if self._keep is not None:
            await self._keep()
        await self._send(send, self._writer.last_events(answer), more=False)

    async def _take(self, send: Send, answer: Answer) -> list[TokenChunk]:
        """The next chunks; a ping for each interval that passes without any."""
        while True:
            try:
                async with asyncio.timeout(self._ping_interval_s):
                    return await answer.take()
            except TimeoutError:
                if self._writer.ping is not None:
                    await self._start_stream(send)
                    await self._send(send, self._writer.ping)

    async def _start_stream(self, send: Send) -> None:
        if not self._is_started:
            await self._start(
                send,
                200,
                [
                    (b"content-type", self._writer.content_type),
                    (b"cache-control", b"no-cache"),
                    (b"x-accel-buffering", b"no"),
                    *own_headers(self._answer.prompt_facts),
                ],
            )
            if opening := self._writer.opening(self._answer.prompt_facts):
                await self._send(send, opening)

    async def _start(self, send: Send, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        await send({"type": "http.response.start", "status": status, "headers": headers})
        self._is_started = True

    async def _send(self, send: Send, body: bytes, *, more: bool = True) -> None:
        # Blocks only while the client reads slower than the buffers allow.
        async with asyncio.timeout(self._write_timeout_s):
            await send({"type": "http.response.body", "body": body, "more_body": more})
        self._is_over = not more

    async def _fail(self, send: Send, exc: Exception) -> None:
        """Send the error: as a status before the first byte, as an event after it. A client that does not
        read gets neither."""
        if isinstance(exc, TimeoutError):
            logger.info("client_dropped reason=reads_too_slowly")
            return
        error = translate(exc)
        error.param = self._params.get(error.param or "", error.param)
        self._answer.record.status = status_of(error)
        if self._is_started:
            with suppress(TimeoutError):
                await self._send(send, self._writer.error_events(error), more=False)
            return
        status, headers, body = encoded(error, self._scope)
        await self._start(send, status, headers)
        await self._send(send, body, more=False)


def own_headers(facts: PromptFacts | None) -> list[tuple[bytes, bytes]]:
    """`x-edgeagent-clamped`: the length that the answer may have, where less was possible than requested."""
    if facts is None or facts.max_tokens is None:
        return []
    return [(b"x-edgeagent-clamped", str(facts.max_tokens).encode())]
