"""The story of one request, on one page: which model, a place on it, its tokens, and what is noted.

    route -> lease -> generate -> chunks -> note

Whoever takes an `Answer` must `release` it; that cancels what still runs and gives the place back.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Literal, Protocol

from edgeagent.catalog.record import InstalledModel
from edgeagent.engine.client import EngineClient, Generation
from edgeagent.errors import (
    EdgeAgentError,
    EngineDied,
    InvalidParameter,
    ModelNotFound,
    Unavailable,
    by_code,
)
from edgeagent.kinds import KINDS, none_installed, wrong_kind
from edgeagent.pool import Pool
from edgeagent.store.requests import RequestRow
from edgeagent.types import (
    EngineFacts,
    FinishReason,
    GenerateSpec,
    Sampling,
    Task,
    TokenChunk,
    Usage,
)

logger = logging.getLogger(__name__)

Prepare = Callable[[EngineClient], Awaitable[object]]

DEFAULT_ALIASES = ("", "default")
# As nginx notes it: the client left before its answer was whole.
CLIENT_GONE = 499


@dataclass(frozen=True)
class Asked:
    """Who asks, by which way: `owner` has the rows, requests of one `key_id` share prefixes."""

    endpoint: str
    request_id: str
    owner: str
    key_id: str


@dataclass(frozen=True)
class Decision:
    """Which model answers, and why."""

    model_id: str
    reason: str


class ModelSource(Protocol):
    """What the agent asks of the installed models; `app` brings it."""

    def default_id(self) -> str | None:
        """The default model, or the only other one there is; None when none is installed."""
        ...

    def with_task(self, task: Task) -> list[str]: ...

    def task(self, model: InstalledModel) -> Task: ...

    async def examine(self) -> None:
        """Make sure of the tasks of models that nobody knows."""
        ...

    def installed(self) -> list[InstalledModel]: ...

    def find(self, model_id: str) -> InstalledModel:
        """Raises: ModelNotFound."""
        ...

    def sampling(self, model_id: str) -> Sampling: ...


class Answer:
    """A request that is being answered. `release()` may be called twice."""

    def __init__(
        self,
        asked: Asked,
        decision: Decision,
        spec: GenerateSpec,
        pool: Pool,
        note: Callable[[Answer], None],
        prepare: Prepare | None = None,
    ) -> None:
        self.asked = asked
        self.decision = decision
        self.spec = spec
        self.started_s = time.monotonic()
        self.status = CLIENT_GONE  # until it is known better
        self.usages: dict[int, Usage] = {}
        self.finishes: dict[int, FinishReason] = {}
        self.n_pieces: dict[int, int] = {}
        self._pool = pool
        self._note = note
        self._prepare = prepare
        self._stack = AsyncExitStack()
        self._generation: Generation | None = None
        self._is_released = False
        self._may_repeat = True

    async def begin(self) -> None:
        """Lease the model and send the request. Raises what `Pool.lease` raises."""
        client = await self._stack.enter_async_context(self._pool.lease(self.decision.model_id))
        self.facts: EngineFacts = client.facts
        if self._prepare is not None:
            await self._prepare(client)
        self._generation = client.generate(self.spec)

    @property
    def origin(self) -> tuple[EngineClient, int] | None:
        """The engine that answers, and by what number it knows the request; None before `begin`."""
        return self._generation.origin if self._generation is not None else None

    async def take(self) -> list[TokenChunk]:
        """New chunks, at least one; empty at the end. Raises the error that ended the request."""
        chunks = await self._take()
        self._may_repeat = False
        for chunk in chunks:
            if chunk.error is not None:
                raise by_code(*chunk.error)
            if chunk.text or chunk.reasoning or chunk.calls:
                self.n_pieces[chunk.index] = self.n_pieces.get(chunk.index, 0) + 1
            if chunk.finish is not None and chunk.usage is not None:
                self.finishes[chunk.index] = chunk.finish
                self.usages[chunk.index] = chunk.usage
        if len(self.finishes) == self.spec.n_answers:
            self.status = 200
            self._pool.record_answer(self.decision.model_id)
        return chunks

    async def _take(self) -> list[TokenChunk]:
        """What the engine has made. A worker that dies before the first piece is asked again once, in
        its next life: nobody has seen anything yet. Once, because the request may be what killed it."""
        assert self._generation is not None, "begin comes first"
        try:
            return await self._generation.take()
        except EngineDied:
            if not self._may_repeat:
                raise
        self._may_repeat = False
        logger.info("request_repeated model=%s reason=engine_died", self.decision.model_id)
        await self._stack.aclose()
        await self.begin()
        return await self._generation.take()

    async def release(self) -> None:
        """Cancel what still runs, give the place back, note how it ended."""
        if self._is_released:
            return
        self._is_released = True
        if self._generation is not None:
            self._generation.cancel()
        await self._stack.aclose()
        self._note(self)


@dataclass(frozen=True)
class ModelStatus:
    """One installed model and whether it is loaded. `created` in Unix seconds."""

    id: str
    created: int
    owner: str
    size_bytes: int
    state: Literal["loaded", "loading", "unloaded"]
    is_default: bool
    n_ctx: int | None
    task: Task


@dataclass(frozen=True)
class Readiness:
    """Whether a request to the default model would be answered now, and if not, why."""

    status: Literal["ready", "loading", "unavailable"]
    model_id: str | None
    reason: str | None = None


class Agent:
    """Answers requests with the models of a pool. Event loop's thread only."""

    def __init__(
        self,
        pool: Pool,
        models: ModelSource,
        note: Callable[[RequestRow], None] = lambda row: None,
    ) -> None:
        self._pool = pool
        self._models = models
        self._note = note

    def route(self, model: str | None) -> Decision:
        """The model a request for text goes to.

        Raises: InvalidParameter for one that generates none; Unavailable when no model is installed.
        """
        if model is not None and model not in DEFAULT_ALIASES:
            for task in KINDS:
                if task != "generate" and model in self._models.with_task(task):
                    able = self._models.with_task("generate")
                    raise InvalidParameter(wrong_kind(model, task, "generate", able), param="model")
            return Decision(model, "named")
        default = self._models.default_id()
        if default is None:
            raise Unavailable(
                none_installed("generate") + " `edgeagent models list` shows the others.",
                retry_after_s=30.0,
            )
        return Decision(default, "default")

    def defaults(self, decision: Decision) -> Sampling:
        """How the model likes to be sampled where a request does not say."""
        return self._models.sampling(decision.model_id)

    def ask(
        self, asked: Asked, decision: Decision, spec: GenerateSpec, prepare: Prepare | None = None
    ) -> Answer:
        """An answer that waits for `begin`. Whoever asks must `release` it. `prepare` is done with the
        engine before it is asked, once in each of its lives."""
        return Answer(asked, decision, spec, self._pool, self._noted, prepare)

    def _noted(self, answer: Answer) -> None:
        row = row_of(answer)
        log(row)
        self._note(row)

    async def listing(self) -> list[ModelStatus]:
        """The installed models, each with a task that is known for sure."""
        await self._models.examine()
        return self.models()

    def models(self) -> list[ModelStatus]:
        default = self._models.default_id()
        # A listing is a moment old: a file that has gone since is not listed.
        return [
            self._status(model, default, created)
            for model in self._models.installed()
            if (created := _modified_s(model)) is not None
        ]

    def model(self, name: str) -> ModelStatus:
        """One installed model, by id or `default`. Raises: ModelNotFound."""
        wanted = self._named(name)
        for model in self.models():
            if model.id == wanted:
                return model
        self._models.find(wanted)  # says what is near
        raise ModelNotFound(
            f"Model {wanted!r} cannot be read now: check its file, or GET /v1/models.",
            param="model",
        )

    def _named(self, name: str) -> str:
        return self.route(None).model_id if name in DEFAULT_ALIASES else name

    async def load(self, name: str) -> ModelStatus:
        """Load a model before it is asked for. Raises what `Pool.lease` raises."""
        await self._pool.load(self._named(name))
        return self.model(name)

    async def unload(self, name: str) -> ModelStatus:
        """End a model's worker. Raises: ModelNotFound."""
        found = self.model(name)
        await self._pool.unload(found.id, "asked for")
        return self.model(name)

    def _status(self, model: InstalledModel, default: str | None, created: int) -> ModelStatus:
        resident = self._pool.resident(model.id)
        is_loaded = resident is not None and resident.state == "loaded"
        facts = resident.client.facts if is_loaded and resident and resident.client else None
        return ModelStatus(
            id=model.id,
            created=created,
            owner="local" if model.unmanaged else "edgeagent",
            size_bytes=model.size_bytes,
            state=resident.state if resident is not None else "unloaded",
            is_default=model.id == default,
            n_ctx=facts.n_ctx_slot if facts is not None else None,
            task=self._models.task(model),
        )

    def readiness(self) -> Readiness:
        try:
            model_id = self.route(None).model_id
        except EdgeAgentError as exc:
            return Readiness("unavailable", None, exc.message)
        resident = self._pool.resident(model_id)
        if resident is None:
            return Readiness("loading", model_id, "the model is loaded at the first request")
        if resident.state == "loaded":
            return Readiness("ready", model_id)
        if resident.state == "loading":
            return Readiness("loading", model_id, "the model is being loaded")
        if broken := self._pool.broken(resident):
            return Readiness("unavailable", model_id, broken.message)
        if resident.failure is not None:
            return Readiness("unavailable", model_id, resident.failure)
        return Readiness("loading", model_id, "the model is loaded at the first request")


def _modified_s(model: InstalledModel) -> int | None:
    try:
        return int(model.path.stat().st_mtime)
    except OSError:
        return None


def row_of(answer: Answer) -> RequestRow:
    """What is noted of a request: counts and times, never content."""
    usages = list(answer.usages.values())
    slowest = max(usages, key=lambda usage: usage.total_ms, default=None)
    n = answer.spec.n
    firsts = [usage for index, usage in answer.usages.items() if index % n == 0]
    tpot_ms = None
    if slowest is not None and slowest.n_generated > 1:
        tpot_ms = (slowest.total_ms - slowest.ttft_ms) / (slowest.n_generated - 1)
    finishes = [answer.finishes.get(i, "cancelled") for i in range(answer.spec.n_answers)]
    return noted(
        answer,
        finish=",".join(dict.fromkeys(finishes)),
        n_prompt=sum(usage.n_prompt for usage in firsts),
        n_cached=sum(usage.n_cached for usage in firsts),
        n_generated=sum(usage.n_generated for usage in usages),
        queue_ms=slowest.queue_ms if slowest else None,
        ttft_ms=slowest.ttft_ms if slowest else None,
        tpot_ms=tpot_ms,
    )


class Noted(Protocol):
    """What a row tells of any request, however it is answered."""

    asked: Asked
    decision: Decision
    status: int
    started_s: float


def noted(
    request: Noted,
    *,
    n_prompt: int,
    queue_ms: float | None,
    n_cached: int = 0,
    n_generated: int = 0,
    ttft_ms: float | None = None,
    tpot_ms: float | None = None,
    finish: str | None = None,
) -> RequestRow:
    """The row of a request that ends now."""
    return RequestRow(
        id=request.asked.request_id,
        owner=request.asked.owner,
        key_id=request.asked.key_id,
        endpoint=request.asked.endpoint,
        model=request.decision.model_id,
        route=request.decision.reason,
        status=request.status,
        finish=finish,
        n_prompt=n_prompt,
        n_cached=n_cached,
        n_generated=n_generated,
        queue_ms=queue_ms,
        ttft_ms=ttft_ms,
        tpot_ms=tpot_ms,
        total_ms=1e3 * (time.monotonic() - request.started_s),
        created_ms=int(1e3 * time.time()),
    )


def log(row: RequestRow) -> None:
    logger.info(
        "request id=%s endpoint=%s model=%s route=%s status=%s finish=%s n_prompt=%s n_cached=%s "
        "n_generated=%s queue_ms=%.0f ttft_ms=%.0f total_ms=%.0f",
        row.id,
        row.endpoint,
        row.model,
        row.route,
        row.status,
        row.finish,
        row.n_prompt,
        row.n_cached,
        row.n_generated,
        row.queue_ms or 0,
        row.ttft_ms or 0,
        row.total_ms,
    )
