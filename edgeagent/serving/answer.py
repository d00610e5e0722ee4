"""The story of one request, on one page: which model, a place on it, its tokens, and what is noted.

    route -> lease -> generate -> chunks -> note

Whoever takes an `Answer` must `release` it; that cancels what still runs and gives the place back.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from typing import Protocol

import msgspec

from edgeagent.catalog.assistant import Assistant
from edgeagent.catalog.record import InstalledModel
from edgeagent.engine.client import EngineClient, Generation
from edgeagent.errors import (
    EdgeAgentError,
    EngineDied,
    EngineFailed,
    InvalidParameter,
    ModelNotFound,
    Unavailable,
    by_code,
)
from edgeagent.pool import Pool
from edgeagent.routing.intents import (
    NO_PREFERENCES,
    OPTIONS,
    AssistantOptions,
    AssistantPreferences,
    make_intent_question,
)
from edgeagent.routing.tasks import KINDS, none_installed, wrong_kind
from edgeagent.serving.call_sentences import CallDescriber
from edgeagent.serving.models import ModelStatus, Readiness
from edgeagent.serving.request_log import log, model_of, row_of
from edgeagent.store.requests import RequestRow
from edgeagent.types.answer import (
    CallText,
    FinishReason,
    PromptFacts,
    SchemaNote,
    TokenChunk,
    Usage,
)
from edgeagent.types.engine import EngineFacts, Task
from edgeagent.types.generation import GenerateSpec
from edgeagent.types.intents import Confidence
from edgeagent.types.sampling import Sampling
from edgeagent.types.template import TemplateFacts

logger = logging.getLogger(__name__)

Prepare = Callable[[EngineClient], Awaitable[object]]

DEFAULT_ALIASES = ("", "default")
# How long a worker may take to say how far it came with what nobody waits for any more.
LAST_WORDS_S = 2.0
# As nginx notes it: the client left before its answer was whole.
CLIENT_GONE = 499


@dataclass(frozen=True)
class RequestOrigin:
    """Who asks, by which way: `owner` has the rows, requests of one `key_id` share prefixes. `tools` are
    those that the key may use, None for any."""

    endpoint: str
    request_id: str
    owner: str
    key_id: str
    tools: frozenset[str] | None = None


@dataclass(frozen=True)
class Decision:
    """Which model answers, and why: it was "named", it is the "default", or a question was "escalated" to
    it by an assistant model whose `confidence` was too low."""

    model_id: str
    reason: str
    confidence: Confidence | None = None


class ModelSource(Protocol):
    """What the agent asks of the installed models; `app` brings it."""

    def default_id(self) -> str | None:
        """The default model, or the only other one there is; None when none is installed."""
        ...

    def named(self, name: str) -> str:
        """The model that a name stands for; the name itself where it is no alias."""
        ...

    def aliases(self, model_id: str) -> tuple[str, ...]: ...

    def with_task(self, task: Task) -> list[str]: ...

    def task(self, model: InstalledModel) -> Task: ...

    def template(self, model: InstalledModel) -> TemplateFacts | None:
        """What a model's chat template can show; None where nobody knows yet."""
        ...

    async def examine(self) -> None:
        """Make sure of the tasks of models that nobody knows."""
        ...

    def installed(self) -> list[InstalledModel]: ...

    def find(self, model_id: str) -> InstalledModel:
        """Raises: ModelNotFound."""
        ...

    def sampling(self, model_id: str) -> Sampling: ...

    def assistant(self, model_id: str) -> Assistant | None:
        """What an assistant model can be asked for; None of any other. Raises: SettingsError."""
        ...

    def larger(self, model_id: str) -> str | None:
        """The installed model that takes over what this one cannot answer."""
        ...

    def hashed_share(self, model_id: str) -> float | None:
        """How much of a model's file is hashed, 0 to 1; None where it is not being hashed."""
        ...


class Answer:
    """A request that is being answered. `release()` may be called twice."""

    def __init__(
        self,
        origin: RequestOrigin,
        decision: Decision,
        spec: GenerateSpec,
        pool: Pool,
        note: Callable[[Answer], None],
        prepare: Prepare | None = None,
        notes: Sequence[str] = (),
    ) -> None:
        self.origin = origin
        self.decision = decision
        self.spec = spec
        self.started_s = time.monotonic()
        self.status = CLIENT_GONE  # until it is known better
        self.usages: dict[int, Usage] = {}
        self.finishes: dict[int, FinishReason] = {}
        self.n_pieces: dict[int, int] = {}
        self.confidence: Confidence | None = None
        self.told: CallText | None = None
        self.tokens: list[int] = []  # of prompt and answer, where they are wanted
        self._teller = CallDescriber(
            spec.intent_question is not None and spec.intent_question.tells
        )
        self._notes = tuple(notes)
        self.schema_notes: dict[SchemaNote, None] = {}  # each once, in their order
        self._pool = pool
        self._note = note
        self._prepare = prepare
        self._stack = AsyncExitStack()
        self._generation: Generation | None = None
        self._is_released = False
        self._may_repeat = True

    async def begin(self) -> None:
        """Lease the model and send the request. Raises what `Pool.lease` raises."""
        client = await self._stack.enter_async_context(
            self._pool.lease(self.decision.model_id, EngineClient)
        )
        self.facts: EngineFacts = client.facts
        if self._prepare is not None:
            await self._prepare(client)
        self._generation = client.generate(self.spec)

    @property
    def noted_model(self) -> str:
        """The model as it is noted: one that is not here has no name."""
        return model_of(self.decision, self._pool)

    @property
    def engine_request(self) -> tuple[EngineClient, int] | None:
        """The engine that answers, and by what number it knows the request; None before `begin`."""
        return self._generation.origin if self._generation is not None else None

    @property
    def prompt_facts(self) -> PromptFacts | None:
        """What is known before the first token; None while the prompt is not made."""
        return self._generation.facts if self._generation is not None else None

    @property
    def notes(self) -> list[str]:
        """What of the request was not done as it says, in words for the client."""
        facts = self.prompt_facts
        n_dropped = facts.n_dropped if facts is not None else 0
        dropped = f"truncation: the {n_dropped} oldest messages did not fit and were left out."
        return [*self._notes, *([dropped] if n_dropped else [])]

    async def take(self) -> list[TokenChunk]:
        """New chunks, at least one; empty at the end. Raises the error that ended the request."""
        chunks = await self._take()
        self._may_repeat = False
        while chunks and not (said := self._teller.told(chunks)):
            chunks = await self._take()
        chunks = said if chunks else []
        for chunk in chunks:
            if chunk.error is not None:
                raise by_code(*chunk.error)
            if chunk.text or chunk.reasoning or chunk.calls:
                self.n_pieces[chunk.index] = self.n_pieces.get(chunk.index, 0) + 1
            self.confidence = chunk.confidence or self.confidence
            self.told = chunk.told or self.told
            self.tokens = chunk.tokens or self.tokens
            self.schema_notes |= dict.fromkeys(chunk.notes)
            self._note_end(chunk)
        if len(self.finishes) == self.spec.n_answers:
            self.status = 200
            self._pool.record_answer(self.decision.model_id)
        return chunks

    def _note_end(self, chunk: TokenChunk) -> None:
        if chunk.finish is not None and chunk.usage is not None:
            self.finishes[chunk.index] = chunk.finish
            self.usages[chunk.index] = chunk.usage

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
        try:
            if self._generation is not None:
                self._generation.cancel()
                await self._hear_out(self._generation)
        finally:
            await self._stack.aclose()
            self._note(self)

    async def _hear_out(self, generation: Generation) -> None:
        """The counts of answers that were broken off: what was computed for them is noted and charged."""
        with suppress(EdgeAgentError, TimeoutError):
            async with asyncio.timeout(LAST_WORDS_S):
                while len(self.finishes) < self.spec.n_answers and (
                    chunks := await generation.take()
                ):
                    for chunk in chunks:
                        self._note_end(chunk)


class Agent:
    """Answers requests with the models of a pool. Event loop's thread only."""

    def __init__(
        self,
        pool: Pool,
        models: ModelSource,
        note: Callable[[RequestRow], None] = lambda row: None,
        options: AssistantOptions = OPTIONS,
    ) -> None:
        self._pool = pool
        self._models = models
        self._note = note
        self.options = options

    def route(self, model: str | None, *, is_text: bool = False) -> Decision:
        """The model a request goes to. With `is_text` it is one for a text to continue: of a default that
        is an assistant model its larger one, if there is one.

        Raises: InvalidParameter for one that generates none; Unavailable when no model is installed.
        """
        if model is not None and model not in DEFAULT_ALIASES:
            model = self._models.named(model)
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
        decision = Decision(default, "default")
        return (self.larger(decision) if is_text else None) or decision

    def assistant(self, decision: Decision) -> Assistant | None:
        """What the model can be asked for, if it is an assistant model. Raises: SettingsError."""
        return self._models.assistant(decision.model_id)

    def larger(self, decision: Decision) -> Decision | None:
        """The model that may take over from an assistant model that nobody named."""
        if decision.reason != "default" or self.assistant(decision) is None:
            return None
        larger = self._models.larger(decision.model_id)
        return Decision(larger, decision.reason) if larger is not None else None

    def suited(
        self,
        origin: RequestOrigin,
        decision: Decision,
        spec: GenerateSpec,
        preferences: AssistantPreferences = NO_PREFERENCES,
    ) -> GenerateSpec:
        """A request as its model takes it: a chat becomes a choice among intents where that is what the
        model does. Raises: UnsuitedRequest, InvalidParameter, Forbidden, SettingsError."""
        assistant = self.assistant(decision)
        if (
            assistant is None
            or spec.intent_question is not None
            or spec.prompts[0].messages is None
        ):
            return spec
        is_named = decision.reason == "named"
        intent_question = make_intent_question(
            spec, assistant, model_id=decision.model_id, domain=preferences.domain, allowed=origin.tools,
            tells=self.options.tells(preferences, is_named=is_named),
            book=self.options.read_book() if spec.tools is not None else None,
        )  # fmt: skip
        return msgspec.structs.replace(spec, intent_question=intent_question, tools=None, stop=[])

    async def consult(self, decision: Decision, spec: GenerateSpec) -> Confidence:
        """How sure an assistant model is of its answer. Raises what `Pool.lease` and the worker raise."""
        question = msgspec.structs.replace(spec, max_tokens=1, n=1)
        async with self._pool.lease(decision.model_id, EngineClient) as client:
            generation = client.generate(question)
            try:
                async for chunk in generation:
                    if chunk.error is not None:
                        raise by_code(*chunk.error)
                    if chunk.confidence is not None:
                        self._pool.record_answer(decision.model_id)
                        return chunk.confidence
            finally:
                generation.cancel()
        raise EngineFailed(f"Model {decision.model_id} gave no answer: send the request again.")

    def defaults(self, decision: Decision) -> Sampling:
        """How the model likes to be sampled where a request does not say."""
        return self._models.sampling(decision.model_id)

    def ask(
        self,
        origin: RequestOrigin,
        decision: Decision,
        spec: GenerateSpec,
        prepare: Prepare | None = None,
        notes: Sequence[str] = (),
    ) -> Answer:
        """An answer that waits for `begin`. Whoever asks must `release` it. `prepare` is done with the
        engine before it is asked, once in each of its lives; `notes` are told with the answer. Raises
        what `suited` raises."""
        spec = self.suited(origin, decision, spec)
        return Answer(origin, decision, spec, self._pool, self._noted, prepare, notes)

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
        found = name if name in DEFAULT_ALIASES else self._models.named(name)
        return self.route(None).model_id if found in DEFAULT_ALIASES else found

    async def load(self, name: str) -> ModelStatus:
        """Load a model before it is asked for. Raises what `Pool.lease` raises."""
        await self._pool.load(self._named(name))
        return self.model(name)

    async def engine_facts(self, name: str) -> EngineFacts:
        """What a model's worker says of it, which is loaded for that. Raises what `Pool.lease` raises."""
        async with self._pool.lease(self._named(name), EngineClient) as client:
            return client.facts

    async def unload(self, name: str) -> ModelStatus:
        """End a model's worker. Raises: ModelNotFound."""
        found = self.model(name)
        await self._pool.unload(found.id, "asked for")
        return self.model(name)

    def _status(self, model: InstalledModel, default: str | None, created: int) -> ModelStatus:
        resident = self._pool.resident(model.id)
        is_loaded = resident is not None and resident.state == "loaded"
        client = resident.client if is_loaded and resident is not None else None
        facts = client.facts if isinstance(client, EngineClient) else None
        return ModelStatus(
            id=model.id,
            created=created,
            owner="local" if model.unmanaged else "edgeagent",
            size_bytes=model.size_bytes,
            state=resident.state if resident is not None else "unloaded",
            is_default=model.id == default,
            n_ctx=facts.n_ctx_slot if facts is not None else None,
            task=self._models.task(model),
            aliases=self._models.aliases(model.id),
            template=self._models.template(model),
            is_assistant=self._is_assistant(model),
        )

    def _is_assistant(self, model: InstalledModel) -> bool:
        with suppress(EdgeAgentError):  # it is told where somebody asks the model something
            return self._models.assistant(model.id) is not None
        return False

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
            share = self._models.hashed_share(model_id)
            doing = "being loaded" if share is None else f"being verified ({100 * share:.0f}%)"
            return Readiness("loading", model_id, f"the model is {doing}")
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
