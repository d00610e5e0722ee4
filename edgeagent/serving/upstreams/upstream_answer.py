"""One answer of an upstream, as a stream of chunks like that of an engine here.

1. choose the upstream that is expected to answer first (balance.py), among those that may be sent the request
2. check its health, where its breaker has been open
3. write into the audit what is sent, and send it
4. chunks as they come (answer_reader.py)
5. a fault before the first chunk: the next upstream, as far as faults.py allows it, each at most once
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from edgeagent.errors import DeadlineExceeded, EdgeAgentError, UpstreamFailed
from edgeagent.routing.upstreams.answer_reader import AnswerReader
from edgeagent.routing.upstreams.balance import choose
from edgeagent.routing.upstreams.event_lines import EventLines
from edgeagent.routing.upstreams.faults import Fault, FaultKind, error_of, may_repeat
from edgeagent.routing.upstreams.outgoing_request import OutgoingRequest, outgoing_request
from edgeagent.serving.upstreams.upstream import Upstream
from edgeagent.types.answer import PromptFacts, TokenChunk
from edgeagent.types.generation import GenerateSpec
from edgeagent.worker.reply_stream import ReplyStream

if TYPE_CHECKING:
    from edgeagent.serving.upstreams.upstream_client import UpstreamClient

logger = logging.getLogger(__name__)

# How long a body may go on behind the end of its answer.
END_S = 0.25
TURN_S = 0.001


class UpstreamGeneration(ReplyStream[TokenChunk]):
    """The chunks of one request. `cancel()` closes the connection, which cancels the request there."""

    facts: PromptFacts | None = None

    def __init__(self, client: UpstreamClient, spec: GenerateSpec) -> None:
        super().__init__(0, lambda _: self._give_up())
        self._model_id: str = client.config.model_id
        self._client = client
        self._spec = spec
        self._n_open = spec.n_answers
        # What cannot be said is refused before anything is sent.
        self._outgoing = {
            one.settings.name: outgoing_request(spec, one.settings.models[self._model_id])
            for one in client.admitted
        }
        self._started_s = time.monotonic()
        self._reader: AnswerReader | None = None
        self._wait_until_s: float | None = None
        name = f"upstream-{client.sender.request_id}"
        self._is_running = False
        self._task = asyncio.create_task(self._run(), name=name)
        self._deadline: asyncio.TimerHandle | None = None
        if spec.timeout_s is not None:
            loop = asyncio.get_running_loop()
            self._deadline = loop.call_later(spec.timeout_s, self._expire)
            self._task.add_done_callback(lambda _: self._forget_deadline())

    def is_last(self, reply: TokenChunk) -> bool:
        if reply.finish is not None:
            self._n_open -= 1
        return self._n_open == 0

    def last_counts(self) -> list[TokenChunk]:
        """The counts of an answer that failed after it was sent: it is charged by what came of it."""
        if self._error is None or self._reader is None:
            return []
        return self._reader.cancelled()

    def _give_up(self) -> None:
        """Cancel the task, unless the whole answer is here: then it is about to end."""
        if self._has_ended or self._task.done():
            return
        if not self._is_running:  # a task that has not begun never says how it ended
            self._put(AnswerReader(self._spec, time.monotonic()).cancelled())
        self._task.cancel()

    def _expire(self) -> None:
        """The client's deadline: an answer that has not begun is given up."""
        if self._task.done() or (self._reader is not None and self._reader.has_shown):
            return
        self.fail(
            DeadlineExceeded(
                f"Model {self._model_id} answers elsewhere, and has not begun before the deadline of the "
                "request: allow it more time, or name another model."
            )
        )
        self._task.cancel()

    def _forget_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()

    # ---- its task

    async def _run(self) -> None:
        self._is_running = True
        try:
            await self._answer()
        except asyncio.CancelledError:
            if self._error is not None:
                return
            reader = self._reader or AnswerReader(self._spec, time.monotonic())
            self._put(reader.cancelled())
        except EdgeAgentError as exc:
            self.fail(exc)
        except Exception:
            logger.exception("upstream_broken model=%s", self._model_id)
            text = f"Model {self._model_id} answers elsewhere, and this failed here: send it again."
            self.fail(UpstreamFailed(text))

    async def _answer(self) -> None:
        left = list(self._client.admitted)
        fault: Fault | None = None
        while True:
            upstream = await self._choose(left)
            if upstream is None:
                fault = fault or Fault("busy", "its engines have failed lately")
                raise error_of(fault, self._model_id, is_repeatable=True)
            left.remove(upstream)
            fault = await self._ask(upstream)
            if fault is None:
                return
            has_begun = self._reader is not None and self._reader.has_shown
            if not may_repeat(fault.kind, upstream.settings.repeats, has_begun=has_begun):
                raise error_of(fault, self._model_id, is_repeatable=False)
            logger.info("upstream_repeat model=%s fault=%s", self._model_id, fault.kind)

    async def _choose(self, left: Sequence[Upstream]) -> Upstream | None:
        """The upstream to ask, with a place there; waits while all of them are busy, once `timeout_s` in all.
        None where all are avoided."""
        line = self._client.upstreams.line
        while True:
            for one in left:
                line.offer(one)  # those who have waited longer come first
            states = {one.settings.name: one.state(self._model_id) for one in left}
            name = choose(list(states.values()))  # 1
            if name is not None:
                chosen = next(one for one in left if one.settings.name == name)
                chosen.n_running += 1
                return chosen
            able = [one for one in left if states[one.settings.name].cooling_s <= 0]
            if not able:
                return None
            if self._wait_until_s is None:
                timeout_s = max(one.settings.timeout_s for one in able)
                self._wait_until_s = asyncio.get_running_loop().time() + timeout_s
            place = await line.wait(self._model_id, left, self._wait_until_s)
            if place is not None:
                return place

    async def _ask(self, upstream: Upstream) -> Fault | None:
        """Ask an upstream that has a place for it. None: it has answered. Raises what the audit raises."""
        n_before = upstream.n_running
        try:
            await upstream.ensure_healthy()  # 2
            outgoing = self._outgoing[upstream.settings.name]
            await self._audit(upstream, outgoing)  # 3
            sent_s = time.monotonic()
            reader = self._reader = AnswerReader(
                self._spec, sent_s, 1e3 * (sent_s - self._started_s), outgoing.n_prompt_tokens
            )
            await self._read(upstream, outgoing, reader)  # 4
            upstream.record_answer(
                self._model_id, took_s=time.monotonic() - sent_s, n_tokens=reader.n_generated,
                n_before=n_before,
            )  # fmt: skip
        except Fault as fault:  # 5
            has_shown = self._reader is not None and self._reader.has_shown
            if not has_shown and fault.kind != "miscalled":
                self._reader = None  # the client has got nothing, and pays nothing
            upstream.record_fault(fault, self._model_id)
            return fault
        finally:
            self._client.upstreams.line.leave(upstream)
        return None

    async def _audit(self, upstream: Upstream, outgoing: OutgoingRequest) -> None:
        """What leaves, where to and for whom: counts, no content. A request that cannot be audited is not
        sent."""
        sender, name = self._client.sender, upstream.settings.name
        model = upstream.settings.models[self._model_id]
        what = f"upstream:{name} model:{model} request:{sender.request_id} {outgoing.counts}"
        await self._client.upstreams.note(sender.key_id, what)
        logger.info(
            "upstream_request upstream=%s id=%s %s", name, sender.request_id, outgoing.counts
        )

    async def _read(
        self, upstream: Upstream, outgoing: OutgoingRequest, reader: AnswerReader
    ) -> None:
        """Raises: Fault."""
        limit_s = upstream.settings.max_answer_s
        lines, turn = EventLines(), Turn()
        try:
            async with (
                asyncio.timeout(limit_s),
                upstream.connection.answer(
                    outgoing.path, outgoing.body, self._client.sender.n_hops + 1
                ) as pieces,
            ):
                async for data in pieces:
                    for event in lines.feed(data):
                        self._put(reader.read(event))
                        await turn.give()
                    await turn.give()
                    if reader.is_over:
                        return await _read_to_end(pieces)
                self._put(reader.finished_without_done())
        except TimeoutError:
            kind: FaultKind = "unfinished" if reader.has_shown else "silent"
            raise Fault(kind, f"its answer had not ended after {limit_s:g} s") from None

    def _put(self, chunks: Sequence[TokenChunk]) -> None:
        """Raises: Fault where nobody reads."""
        for chunk in chunks:
            self.put(chunk)
        if self.is_overrun:
            raise UpstreamFailed("The answer was not read: read the stream as it comes.")


class Turn:
    """Lets the event loop do other work, where an upstream sends more than can be read at once."""

    def __init__(self) -> None:
        self._since_s = time.monotonic()

    async def give(self) -> None:
        if time.monotonic() - self._since_s > TURN_S:
            await asyncio.sleep(0)
            self._since_s = time.monotonic()


async def _read_to_end(pieces: AsyncIterator[bytes]) -> None:
    """Read the end of the body behind the end of the answer, so that the connection can be used again."""
    with suppress(TimeoutError, Fault):
        async with asyncio.timeout(END_S):
            await anext(pieces, None)
