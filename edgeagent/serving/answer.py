"""One answer of a text model, from the lease of its engine to its row in the request log.

The numbers continue those of serving/chat.py, which chooses the model and makes the request:

6. `begin`     lease the engine, which loads the model if needed; do what comes before the request
7. `begin`     send the request
8. `take`      chunks as they come; a worker that dies before the first chunk is asked once more, and in
               place of upstreams that have not begun the route chooses another model
9. `log`       log the request; for a complete answer before its last byte, else in `release`
10. `release`  cancel what still runs, end the lease

Whoever has an `Answer` must `release` it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec

from edgeagent.engine.client import EngineClient, Generation
from edgeagent.errors import (
    EdgeAgentError,
    EngineDied,
    InvalidParameter,
    UpstreamUnavailable,
    by_code,
)
from edgeagent.routing.decision import Decision
from edgeagent.serving.call_sentences import CallDescriber
from edgeagent.serving.deadline import before, left_s
from edgeagent.serving.engines import Engines
from edgeagent.serving.request_log import RequestRecord
from edgeagent.serving.request_origin import RequestOrigin
from edgeagent.serving.upstreams.upstream_client import UpstreamClient
from edgeagent.serving.warm_prefixes import Watch
from edgeagent.types.answer import (
    CallText,
    FinishReason,
    PromptFacts,
    SchemaNote,
    TokenChunk,
    Usage,
)
from edgeagent.types.generation import GenerateSpec
from edgeagent.types.intents import Confidence
from edgeagent.types.unary_requests import DetokenizeSpec

if TYPE_CHECKING:
    from edgeagent.serving.upstreams.upstream_answer import UpstreamGeneration

logger = logging.getLogger(__name__)

Preparation = Callable[[EngineClient], Awaitable[None]]
# Another model for a request and the request in its form, after these models could not be used; None: none.
Redirection = Callable[[frozenset[str]], Awaitable[tuple[Decision, GenerateSpec] | None]]

# How long a worker may take to report the counts of a cancelled answer.
LAST_COUNTS_S = 2.0


@dataclass(frozen=True)
class TokenTotals:
    """Tokens of all parts of an answer; each prompt counts once."""

    n_prompt: int
    n_cached: int
    n_generated: int
    n_reasoning: int
    n_predicted: int
    n_mispredicted: int


class Answer:
    """A request that is being answered. Event loop's thread only; `release()` may be called twice.

    `prepare` runs with the engine before the request, once for each life of the worker. `notes` tell the
    client what was not done as requested. `on_death` is told the model whose worker died for good.
    `prompt_texts` are the prompts as text, where they were wanted.
    """

    def __init__(
        self,
        origin: RequestOrigin,
        decision: Decision,
        spec: GenerateSpec,
        engines: Engines,
        *,
        prepare: Preparation | None = None,
        notes: Sequence[str] = (),
    ) -> None:
        self.decision = decision
        self.spec = spec
        self.record = RequestRecord(origin, decision)
        self.usages: dict[int, Usage] = {}
        self.finishes: dict[int, FinishReason] = {}
        self.confidence: Confidence | None = None
        self.call_text: CallText | None = None
        self.tokens: list[int] = []  # of prompt and answer, where the request wants them
        self.prompt_texts: list[str] = []
        self.is_live = False  # whether it is sent as it comes
        self.on_death: Callable[[str], None] = lambda model_id: None
        self.schema_notes: dict[SchemaNote, None] = {}  # each once, in order of arrival
        question = spec.intent_question
        answers = {c.name: c.answer for c in question.candidates if c.answer} if question else {}
        self._describer = CallDescriber(question is not None and question.tells, answers)
        self._notes = tuple(notes)
        self._n_chunks: dict[int, int] = {}
        self._engines = engines
        self._prepare = prepare
        self._stack = AsyncExitStack()
        self._generation: Generation | UpstreamGeneration | None = None
        self._redirect: Redirection | None = None
        self._refusal: UpstreamUnavailable | None = None
        self._redirecting: asyncio.Task[bool] | None = None
        self._failed: frozenset[str] = frozenset()
        self._watch: Watch | None = None
        self._is_released = False
        self._is_logged = False
        self._may_repeat = True

    def prepare_with(self, prepare: Preparation) -> None:
        """Set what runs with the engine before the request."""
        self._prepare = prepare

    def redirect_with(self, redirect: Redirection) -> None:
        """Set what chooses another model where upstreams have not begun."""
        self._redirect = redirect

    async def begin(self) -> None:
        """Lease the engine and send the request. Raises DeadlineExceeded, and what `Pool.lease` raises."""
        deadline_s = self.record.origin.deadline_s
        async with before(deadline_s):
            lease = self._engines.lease_for(self.record.origin, self.decision)
            client = await self._stack.enter_async_context(lease)  # 6
            if not isinstance(client, UpstreamClient):
                if self._prepare is not None:
                    await self._prepare(client)
                if (warm := self._engines.warm) is not None:
                    self._watch = await warm.recall(client, self.record.origin.owner, self.spec)
        self.spec = msgspec.structs.replace(
            self.spec, timeout_s=left_s(deadline_s), is_retry=self.record.origin.is_retry
        )
        self._generation = client.generate(self.spec)  # 7
        if isinstance(self._generation, Generation):
            self._generation.is_live = self.is_live

    async def take(self) -> list[TokenChunk]:
        """New chunks, at least one; empty at the end. Raises the error that ended the request."""
        chunks = await self._take()  # 8
        self._may_repeat = False
        while chunks and not (described := self._describer.told(chunks)):
            chunks = await self._take()
        chunks = described if chunks else []
        for chunk in chunks:
            if chunk.error is not None:
                raise by_code(*chunk.error, retry_after_s=chunk.retry_after_s)
            self._count(chunk)
        if chunks and len(self.finishes) == self.spec.n_answers:
            self.record.status = 200
            self._note_head()
            self._engines.record_answer(self.decision.model_id)
        return chunks

    def pass_on(self, receiver: Callable[[TokenChunk], bool]) -> None:
        """Give chunks that are only text to `receiver` as they come, while the caller waits in `take`, which
        returns those that it does not take (False), and all others. Call it after the first chunks; answers
        of engines elsewhere come by `take` alone."""
        generation = self._generation
        if not isinstance(generation, Generation):
            return

        def receive(chunk: TokenChunk) -> bool:
            if not chunk.is_text or not receiver(chunk):
                return False
            self._n_chunks[chunk.index] = self._n_chunks.get(chunk.index, 0) + 1
            return True

        generation.receiver = receive

    def _note_head(self) -> None:
        """Tell that the system prompt and tools of this answer were used."""
        warm, request = self._engines.warm, self.engine_request
        if warm is not None and self._watch is not None and request is not None:
            warm.note(*request, self._watch, self.spec, self.usages[0])

    async def _take(self) -> list[TokenChunk]:
        """Chunks from the engine. A worker that dies before the first chunk is asked once more after its
        restart, since the client has seen nothing; only once, since the request may have killed it."""
        assert self._generation is not None, "begin comes first"
        if self._refusal is not None:
            return await self._take_elsewhere(self._refusal)
        try:
            return await self._generation.take()
        except UpstreamUnavailable as exc:
            self._refusal = exc
            return await self._take_elsewhere(exc)
        except EngineDied:
            if not self._may_repeat:
                self.on_death(self.decision.model_id)
                raise
        self._may_repeat = False
        logger.info("request_repeated model=%s reason=engine_died", self.decision.model_id)
        await self._stack.aclose()
        try:
            await self.begin()
            return await self._generation.take()
        except EngineDied:
            self.on_death(self.decision.model_id)
            raise

    async def _take_elsewhere(self, refusal: UpstreamUnavailable) -> list[TokenChunk]:
        """Chunks from another model of the route, where upstreams have not begun. Raises the `refusal`."""
        if not await self._is_redirected():
            raise refusal
        self._refusal = None
        return await self._take()

    async def _is_redirected(self) -> bool:
        """Whether another model has got the request, of which the client has seen nothing. The caller may be
        cancelled, as by a ping, and ask again: the other model is chosen and loaded all the same."""
        if self._redirecting is None:
            if not self._may_repeat or self._redirect is None:
                return False
            redirecting = self._begin_elsewhere(self._redirect)
            self._redirecting = asyncio.create_task(redirecting, name="redirect")
        try:
            found = await asyncio.shield(self._redirecting)
        except EdgeAgentError:
            self._redirecting = None
            raise
        self._redirecting = None
        return found

    async def _begin_elsewhere(self, redirect: Redirection) -> bool:
        while True:
            self._failed |= {self.decision.model_id}
            other = await redirect(self._failed)
            if other is None:
                return False
            logger.info(
                "request_redirected from=%s to=%s", self.decision.model_id, other[0].model_id
            )
            await self._stack.aclose()
            self.decision, self.spec = other
            self.record.decision = self.decision
            try:
                await self.begin()
            except UpstreamUnavailable:
                continue
            return True

    def _count(self, chunk: TokenChunk) -> None:
        if chunk.text or chunk.reasoning or chunk.calls:
            self._n_chunks[chunk.index] = self._n_chunks.get(chunk.index, 0) + 1
        self.confidence = chunk.confidence or self.confidence
        self.call_text = chunk.told or self.call_text
        self.tokens = chunk.tokens or self.tokens
        self.schema_notes |= dict.fromkeys(chunk.notes)
        self._count_end(chunk)

    def _count_end(self, chunk: TokenChunk) -> None:
        if chunk.finish is not None and chunk.usage is not None:
            self.finishes[chunk.index] = chunk.finish
            self.usages[chunk.index] = chunk.usage

    def log(self) -> None:
        """Log the request if its answer is complete. Call before the last byte is sent, since the client may
        ask for what it belongs to at once."""
        if len(self.finishes) == self.spec.n_answers:
            self._log_once()  # 9

    def _log_once(self) -> None:
        if self._is_logged:
            return
        self._is_logged = True
        row = self.record.answer_row(self._engines, self.spec, self.usages, self.finishes)
        self._engines.log(row)

    async def release(self) -> None:
        """Cancel what still runs, end the lease and log the request."""
        if self._is_released:
            return
        self._is_released = True
        try:
            if self._redirecting is not None:
                self._redirecting.cancel()
                # It may have failed meanwhile: nobody is left to be told.
                await asyncio.gather(self._redirecting, return_exceptions=True)
            if self._generation is not None:
                self._generation.cancel()  # 10
                await self._take_last_counts(self._generation)
        finally:
            await self._stack.aclose()
            self._log_once()

    async def _take_last_counts(self, generation: Generation | UpstreamGeneration) -> None:
        """Wait for the counts of cancelled parts: their tokens are logged and charged."""
        with suppress(EdgeAgentError, TimeoutError):
            async with asyncio.timeout(LAST_COUNTS_S):
                while len(self.finishes) < self.spec.n_answers and (
                    chunks := await generation.take()
                ):
                    for chunk in chunks:
                        self._count_end(chunk)
        if not isinstance(generation, Generation):
            for chunk in generation.last_counts():
                self._count_end(chunk)

    # ---- what is known of it

    @property
    def engine_request(self) -> tuple[EngineClient, int] | None:
        """The engine of this device that answers and its number for the request; None before `begin`."""
        generation = self._generation
        return generation.origin if isinstance(generation, Generation) else None

    @property
    def prompt_facts(self) -> PromptFacts | None:
        """Facts that are known before the first token; None until the prompt is tokenized."""
        return self._generation.facts if self._generation is not None else None

    @property
    def notes(self) -> list[str]:
        """What was not done as requested, in words for the client."""
        facts = self.prompt_facts
        n_dropped = facts.n_dropped if facts is not None else 0
        dropped = f"truncation: the {n_dropped} oldest messages did not fit and were left out."
        return [*self._notes, *([dropped] if n_dropped else [])]

    @property
    def totals(self) -> TokenTotals:
        """Tokens of the parts that have ended."""
        firsts = [usage for index, usage in self.usages.items() if index % self.spec.n == 0]
        return TokenTotals(
            n_prompt=sum(usage.n_prompt for usage in firsts),
            n_cached=sum(usage.n_cached for usage in firsts),
            n_generated=sum(usage.n_generated for usage in self.usages.values()),
            n_reasoning=sum(usage.n_reasoning for usage in self.usages.values()),
            n_predicted=sum(usage.n_predicted for usage in self.usages.values()),
            n_mispredicted=sum(usage.n_mispredicted for usage in self.usages.values()),
        )

    @property
    def n_tokens(self) -> int:
        """Tokens read and generated, for the limit of the key. A part without counts was cut off: each of
        its chunks was at least one token."""
        totals = self.totals
        n_cut_off = sum(n for index, n in self._n_chunks.items() if index not in self.usages)
        return totals.n_prompt + totals.n_generated + n_cut_off


async def read_prompts(client: EngineClient, answer: Answer) -> None:
    """Turn the prompts into text. Token ids that the model does not have are the engine's to refuse."""
    texts: list[str] = []
    for prompt in answer.spec.prompts:
        if prompt.tokens is None:
            texts.append(prompt.text or "")
            continue
        try:
            texts.append(await client.ask(DetokenizeSpec(tokens=prompt.tokens)))
        except InvalidParameter:
            return
    answer.prompt_texts = texts
