"""Sends one answer, streamed or whole, and releases it as soon as the client leaves.

Nothing is sent before the first tokens, so that an error until then is a status code and not an event. A
stream that stays silent for longer, during a long prefill, sends pings.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from types import MappingProxyType
from typing import Protocol

from litestar.types import Receive, Scope, Send

from edgeagent.api.http.disconnect import run_until_gone
from edgeagent.api.http.errors import status_of, translate
from edgeagent.api.http.request_context import RequestContext, context_of
from edgeagent.api.http.response_sender import ResponseSender, log_slow_reader
from edgeagent.api.http.shutdown import shutting_down
from edgeagent.errors import EdgeAgentError
from edgeagent.routing.decision import Decision
from edgeagent.serving.answer import Answer
from edgeagent.types.answer import PromptFacts, TokenChunk


class Writer(Protocol):
    """Encodes chunks for one endpoint. One for each response.

    `content_type` is that of a stream. A silent stream sends `ping` at intervals; None: nothing.
    """

    content_type: bytes
    ping: bytes | None

    def decided(self, decision: Decision) -> None:
        """Another model answers than the one that the writer was made for."""
        ...

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
        self._decision = answer.decision
        self._passed_s = 0.0  # when the last chunk was sent past `_take`

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        context = context_of(scope)
        sender = ResponseSender(scope, send, self._write_timeout_s)
        try:
            ending = await run_until_gone(
                self._produce(sender, context), receive, name="answer", shutdown=context.shutdown
            )
            if ending == "stopping" and not sender.is_over:
                await self._fail(sender, shutting_down())
        finally:
            # However this ended, the answer holds nothing when the response is over.
            await self._answer.release()
            self._ended()
            context.charge(self._answer.n_tokens)

    async def _produce(self, sender: ResponseSender, context: RequestContext) -> None:
        self._answer.is_live = self._is_stream
        try:
            await self._answer.begin()
            if self._is_stream:
                await self._stream(sender, self._answer, context)
            else:
                await self._whole(sender, self._answer, context)
        except Exception as exc:
            await self._fail(sender, exc)

    async def _whole(self, sender: ResponseSender, answer: Answer, context: RequestContext) -> None:
        while chunks := await answer.take():
            self._writer.collect(chunks)
        self._follow_decision()
        if self._keep is not None:
            await self._keep()
        body = self._writer.whole(answer)
        context.charge(answer.n_tokens)
        answer.log()
        await sender.whole(b"application/json", body, own_headers(answer))

    async def _stream(
        self, sender: ResponseSender, answer: Answer, context: RequestContext
    ) -> None:
        is_passing = False
        while chunks := await self._take(sender, answer):
            self._follow_decision()
            if self._keep is not None:
                self._writer.collect(chunks)
            await self._start_stream(sender)
            await sender.piece(self._writer.events(chunks))
            if not is_passing:  # from the second chunk on: until then the request may be repeated
                answer.pass_on(partial(self._pass, sender))
                is_passing = True
        if self._keep is not None:
            await self._keep()
        events = self._writer.last_events(answer)
        context.charge(answer.n_tokens)
        answer.log()
        await sender.piece(events, more=False)

    def _pass(self, sender: ResponseSender, chunk: TokenChunk) -> bool:
        """Send a chunk as it comes, while `_take` waits. False: `_take` is to return it."""
        if not sender.can_pass:
            return False
        if self._keep is not None:
            self._writer.collect([chunk])
        if piece := self._writer.events([chunk]):
            sender.pass_on(piece)
            self._passed_s = time.monotonic()
        return True

    def _follow_decision(self) -> None:
        """Tell the writer where a route has chosen another model since."""
        if self._answer.decision is not self._decision:
            self._decision = self._answer.decision
            self._writer.decided(self._decision)

    async def _take(self, sender: ResponseSender, answer: Answer) -> list[TokenChunk]:
        """The next chunks that `_pass` has not sent; a ping for each interval that passes without any."""
        silent_since_s = time.monotonic()  # the clock of the event loop
        while True:
            try:
                async with asyncio.timeout_at(silent_since_s + self._ping_interval_s):
                    return await answer.take()
            except TimeoutError:
                if self._passed_s > silent_since_s:
                    silent_since_s = self._passed_s
                    continue
                if self._writer.ping is not None:
                    await self._start_stream(sender)
                    await sender.piece(self._writer.ping)
                silent_since_s = time.monotonic()

    async def _start_stream(self, sender: ResponseSender) -> None:
        if not sender.is_started:
            facts = self._answer.prompt_facts
            await sender.start_stream(self._writer.content_type, own_headers(self._answer))
            if opening := self._writer.opening(facts):
                await sender.piece(opening)

    async def _fail(self, sender: ResponseSender, exc: Exception) -> None:
        if isinstance(exc, TimeoutError):
            log_slow_reader()
            return
        error = translate(exc)
        error.param = self._params.get(error.param or "", error.param)
        self._answer.record.status = status_of(error)
        await sender.fail(error, self._writer.error_events)


def own_headers(answer: Answer) -> list[tuple[bytes, bytes]]:
    """`x-edgeagent-clamped`: the length that the answer may have, where less was possible than requested.
    `x-edgeagent-route`: the model and the reason for it, where the request named a route."""
    headers: list[tuple[bytes, bytes]] = []
    facts = answer.prompt_facts
    if facts is not None and facts.max_tokens is not None:
        headers.append((b"x-edgeagent-clamped", str(facts.max_tokens).encode()))
    if (route := answer.decision.header) is not None:
        headers.append((b"x-edgeagent-route", route.encode()))
    return headers
