"""An engine and a set of models for tests that drive serving/ without HTTP, weights or processes."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

from edgeagent.catalog.assistant_intents import Assistant
from edgeagent.errors import EdgeAgentError, ModelNotFound
from edgeagent.routing.decision import Decision
from edgeagent.routing.intents import AssistantOptions
from edgeagent.serving.model_choice import ModelChooser
from edgeagent.serving.request_origin import RequestOrigin
from edgeagent.settings.routing import RoutingSettings
from edgeagent.store.requests import RequestRow
from edgeagent.types.answer import PromptFacts, TokenChunk, Usage
from edgeagent.types.engine_config import Task
from edgeagent.types.generation import GenerateSpec
from edgeagent.types.intents import Confidence
from edgeagent.types.sampling import Sampling

ORIGIN = RequestOrigin("/v1/chat/completions", "req_1", "ann", "key_ann")
USAGE = Usage(n_prompt=7, n_cached=3, n_generated=2, queue_ms=1.0, ttft_ms=5.0, total_ms=9.0)
Step = TokenChunk | EdgeAgentError | asyncio.Event
Script = Callable[[GenerateSpec], Sequence[Step]]


def said(text: str) -> list[Step]:
    """The chunks of a text, cut in two."""
    middle = len(text) // 2
    return [TokenChunk(0, text[:middle]), TokenChunk(0, text[middle:], "stop", USAGE)]


def sure(probability: float, *, is_abstained: bool = False) -> TokenChunk:
    """The chunk by which an assistant model says how sure it is."""
    found = Confidence("light", probability, probability, None, is_abstained)
    return TokenChunk(0, "", "tool_calls", USAGE, confidence=found)


class FakeGeneration:
    """Gives a script of chunks, one at a time; an error in it is raised, an event waited for."""

    def __init__(self, client: FakeClient, steps: Sequence[Step]) -> None:
        self.origin = (client, len(client.specs))
        self.facts = PromptFacts(USAGE.n_prompt)
        self.is_cancelled = False
        self._steps = deque(steps)

    async def take(self) -> list[TokenChunk]:
        if not self._steps:
            return []
        step = self._steps.popleft()
        if isinstance(step, EdgeAgentError):
            raise step
        if isinstance(step, asyncio.Event):
            await step.wait()
            return await self.take()
        return [step]

    async def __aiter__(self) -> AsyncIterator[TokenChunk]:
        while chunks := await self.take():
            for chunk in chunks:
                yield chunk

    def last_counts(self) -> list[TokenChunk]:
        return []

    def cancel(self) -> None:
        self.is_cancelled = True


class FakeClient:
    """An engine that answers by a script and notes what it was asked."""

    def __init__(self, model_id: str, script: Script) -> None:
        self.config = SimpleNamespace(model_id=model_id)
        self.facts = SimpleNamespace(state_kind=None)
        self.specs: list[GenerateSpec] = []
        self.generations: list[FakeGeneration] = []
        self._script = script

    def generate(self, spec: GenerateSpec) -> FakeGeneration:
        self.specs.append(spec)
        self.generations.append(FakeGeneration(self, self._script(spec)))
        return self.generations[-1]

    async def ask(self, question: Any) -> Any:
        return "".join(map(chr, question.tokens))


class FakeEngines:
    """`serving/engines.py` in memory: `rows` is the request log, `n_leased` counts open leases."""

    def __init__(self, **scripts: Script) -> None:
        self.clients = {name: FakeClient(name, script) for name, script in scripts.items()}
        self.rows: list[RequestRow] = []
        self.answered: list[str] = []
        self.n_leased = 0
        self.warm = None

    @asynccontextmanager
    async def lease(self, model_id: str) -> AsyncIterator[FakeClient]:
        if model_id not in self.clients:
            raise ModelNotFound(f"Model {model_id!r} is not installed.", param="model")
        self.n_leased += 1
        try:
            yield self.clients[model_id]
        finally:
            self.n_leased -= 1

    def lease_for(self, origin: RequestOrigin, decision: Decision) -> Any:
        return self.lease(decision.model_id)

    def is_known(self, model_id: str) -> bool:
        return model_id in self.clients

    def record_answer(self, model_id: str) -> None:
        self.answered.append(model_id)

    def log(self, row: RequestRow) -> None:
        self.rows.append(row)


class FakeModels:
    """Installed models by task; the first that generates text is the default one."""

    def __init__(
        self,
        by_task: Mapping[Task, Sequence[str]],
        *,
        aliases: Mapping[str, str] | None = None,
        assistants: Mapping[str, Assistant] | None = None,
        larger: Mapping[str, str] | None = None,
    ) -> None:
        self._by_task = by_task
        self._aliases = aliases or {}
        self._assistants = assistants or {}
        self._larger = larger or {}

    def default_id(self) -> str | None:
        return next(iter(self._by_task.get("generate", ())), None)

    def named(self, name: str) -> str:
        return self._aliases.get(name, name)

    def with_task(self, task: Task) -> list[str]:
        return list(self._by_task.get(task, ()))

    def installed(self) -> list[Any]:
        return [
            SimpleNamespace(id=name, size_bytes=100 * (n + 1), task=task)
            for task, names in self._by_task.items()
            for n, name in enumerate(names)
        ]

    def has(self, model_id: str) -> bool:
        return any(model.id == model_id for model in self.installed())

    def adapter(self, name: str) -> None:
        return None

    def task(self, model: Any) -> Task:
        return model.task

    def is_assistant(self, model: Any) -> bool:
        return model.id in self._assistants

    async def examine(self) -> None:
        return None

    def find(self, model_id: str) -> Any:
        if any(model_id in ids for ids in self._by_task.values()):
            return SimpleNamespace(id=model_id)
        raise ModelNotFound(f"Model {model_id!r} is not installed.", param="model")

    def sampling(self, model_id: str) -> Sampling:
        return Sampling(temperature=0.3)

    def assistant(self, model_id: str) -> Assistant | None:
        return self._assistants.get(model_id)

    def larger(self, model_id: str) -> str | None:
        return self._larger.get(model_id)


def chooser(models: FakeModels, **options: Any) -> ModelChooser:
    """A chooser among these models."""
    return ModelChooser(models, AssistantOptions(RoutingSettings(**options)))  # type: ignore[arg-type]
