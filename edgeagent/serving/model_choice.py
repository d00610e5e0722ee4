"""Chooses the model of a request: resolves names and aliases, then asks the router.

This is the one place where a name that a client sent becomes a model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import msgspec

from edgeagent.catalog.assistant_intents import Assistant
from edgeagent.catalog.installed import InstalledModels
from edgeagent.catalog.model_ids import is_id
from edgeagent.errors import EdgeAgentError, InvalidParameter, ModelNotFound
from edgeagent.pool.resident_model import Resident
from edgeagent.routing import router
from edgeagent.routing.cascade import Trial
from edgeagent.routing.decision import Decision, Reason, TraceStep
from edgeagent.routing.intents import (
    DEFAULT_OPTIONS,
    NO_PREFERENCES,
    AssistantOptions,
    AssistantPreferences,
    make_intent_question,
)
from edgeagent.routing.upstreams.outgoing_request import BLANK
from edgeagent.routing.upstreams.upstream_access import Sender
from edgeagent.serving.request_origin import RequestOrigin
from edgeagent.serving.routes import Routes, privacy_of, route_request
from edgeagent.serving.upstreams.upstreams import Upstreams
from edgeagent.settings.routing import RoutingSettings
from edgeagent.types.engine_config import Task
from edgeagent.types.generation import GenerateSpec
from edgeagent.types.intents import Confidence
from edgeagent.types.prompt import Prompt
from edgeagent.types.sampling import Sampling

DEFAULT_NAMES = ("", "default")
ROUTE_PREFIX = "auto:"  # no model id has a colon
TASKS: tuple[Task, ...] = ("generate", "embed", "rerank", "transcribe")


class ModelChooser:
    """Chooses among the installed models. Event loop's thread only. `residents` are those in the pool."""

    def __init__(
        self,
        models: InstalledModels,
        options: AssistantOptions = DEFAULT_OPTIONS,
        residents: Callable[[], Iterable[Resident]] = lambda: (),
        upstreams: Upstreams | None = None,
    ) -> None:
        self._models = models
        self.options = options
        self.routes = Routes(options.settings, models, residents, upstreams=upstreams)
        self._upstreams = self.routes.upstreams

    # ---- names

    def resolve(self, name: str | None) -> str | None:
        """The model that a name or an alias stands for; None for the default model."""
        if name is None or name in DEFAULT_NAMES:
            return None
        name = self._models.named(name)
        return None if name in DEFAULT_NAMES else name

    def model_id(self, name: str) -> str:
        """The id behind a name, `default` and routes included. Raises: Unavailable where no text model is
        installed."""
        resolved = self.resolve(name)
        if resolved is None or self.routes.has(resolved):
            return self.for_text(name).model_id
        return resolved

    # ---- the model of a request

    def for_text(
        self,
        name: str | None,
        origin: RequestOrigin | None = None,
        prompts: Sequence[Prompt] = (),
        *,
        metadata: Mapping[str, str] | None = None,
        has_tools: bool = False,
        has_schema: bool = False,
        is_plain: bool = False,
        failed: frozenset[str] = frozenset(),
    ) -> Decision:
        """The model for a chat. What follows `name` matters where that is a route.

        Raises: InvalidParameter, Unavailable (routing/router.py); Forbidden for a route of other keys;
        ModelNotFound for a name that begins as a route and is none.
        """
        resolved = self.resolve(name)
        if resolved is not None and (adapter := self._models.adapter(resolved)) is not None:
            assert adapter.base is not None
            base = router.text_model(adapter.base, self._names())
            return replace(base, adapter=adapter.id, adapter_path=str(adapter.path))
        if resolved is not None and self.is_elsewhere(resolved):
            return self._elsewhere(resolved, origin, metadata or {})
        if resolved is None or not self.routes.has(resolved):
            if resolved is not None and resolved.startswith(ROUTE_PREFIX):
                raise self._unknown_route(resolved, origin)
            return router.text_model(resolved, self._names())
        request = route_request(
            resolved, origin, prompts, metadata=dict(metadata or {}), has_tools=has_tools,
            has_schema=has_schema, is_plain=is_plain, failed=failed,
        )  # fmt: skip
        return self.routes.decide(request)

    def _unknown_route(self, name: str, origin: RequestOrigin | None) -> ModelNotFound:
        known = self.routes.listing(origin) if origin is not None else []
        there_are = f"there are {', '.join(known)}" if known else "GET /v1/models lists routes"
        return ModelNotFound(f"No route is called {name[:80]!r}: {there_are}.", param="model")

    def why_not(
        self, name: str, origin: RequestOrigin, metadata: Mapping[str, str] | None = None
    ) -> str | None:
        """Why no model would answer this caller's chat under a name; None where one would."""
        try:
            decision = self.for_text(name, origin, metadata=metadata)
        except EdgeAgentError as exc:
            return exc.message
        is_here = self.is_elsewhere(decision.model_id) or self._models.has(decision.model_id)
        return None if is_here else f"Model {decision.model_id[:80]!r} is not installed."

    def with_adapter(self, name: str | None, lora: str | None) -> str | None:
        """The name to ask for, where a request names a model and, apart from it, a LoRA adapter.

        Raises: ModelNotFound for an unknown adapter; InvalidParameter for one of another model.
        """
        if lora is None:
            return name
        adapter = self._models.adapter(lora) if is_id(lora) else None
        if adapter is None:
            known = [one.id for one in self._models.adapters()]
            raise ModelNotFound(
                f"There is no LoRA adapter {lora[:80]!r}: {', '.join(known) or 'none'} "
                "can be used; `edgeagent models adapter add` installs one.",
                param="lora",
            )
        if self.resolve(name) not in (None, adapter.base, adapter.id):
            raise InvalidParameter(
                f"The LoRA adapter {adapter.id!r} is one of {adapter.base!r}, and the request names another "
                f"model: name {adapter.base!r}, or none.",
                param="lora",
            )
        return adapter.id

    def is_elsewhere(self, model_id: str) -> bool:
        """Whether upstreams answer for this name. A model that is installed here keeps its name."""
        return bool(self._upstreams.of(model_id)) and not self._models.has(model_id)

    def elsewhere(self, origin: RequestOrigin) -> list[str]:
        """The models of upstreams that requests of this caller may be sent to."""
        found = self._upstreams.listing(origin.key_id, origin.owner)
        return [model_id for model_id in found if self.is_elsewhere(model_id)]

    def _elsewhere(
        self, model_id: str, origin: RequestOrigin | None, metadata: Mapping[str, str]
    ) -> Decision:
        """The decision for a request that names a model of upstreams. Raises: Forbidden; InvalidParameter for
        an unknown privacy."""
        privacy = privacy_of(metadata)
        sender = (
            Sender(origin.key_id, origin.owner, privacy)
            if origin is not None
            else Sender("local", "local", privacy)
        )
        self._upstreams.admitted(model_id, sender)
        return Decision(model_id, "named", privacy=privacy)

    def for_plain_text(
        self,
        name: str | None,
        origin: RequestOrigin | None = None,
        prompts: Sequence[Prompt] = (),
        failed: frozenset[str] = frozenset(),
    ) -> Decision:
        """The model for a text to continue: an assistant model, which does not continue texts, gives way to
        its larger model where that is installed. Raises as `for_text`."""
        decision = self.for_text(name, origin, prompts, is_plain=True, failed=failed)
        return self.larger(decision) or decision

    async def for_task(self, task: Task, name: str | None) -> Decision:
        """The model for embeddings or rankings.

        Raises: InvalidParameter, ModelNotFound (routing/router.py); ModelNotApproved.
        """
        await self._models.examine()
        model_id = self.resolve(name)
        if model_id is not None:
            self._models.find(model_id)
        return router.task_model(task, model_id, self._names())

    async def with_task(self, task: Task) -> list[str]:
        """The ids of all models for a task."""
        await self._models.examine()
        return self._names().of(task)

    def for_any_task(self, name: str | None) -> Decision:
        """The model for what all models do. Raises: ModelNotFound, ModelNotApproved."""
        model_id = self.resolve(name)
        if self.routes.has(model_id):
            model_id = self.for_text(name).model_id
        if model_id is not None and (adapter := self._models.adapter(model_id)) is not None:
            model_id = adapter.base
        if model_id is not None:
            self._models.find(model_id)
        return router.any_model(model_id, self._names())

    def _names(self) -> router.ModelNames:
        by_task = {task: self._models.with_task(task) for task in TASKS}
        return router.ModelNames(by_task, self._models.default_id())

    # ---- assistant models

    def assistant(self, decision: Decision) -> Assistant | None:
        """What an assistant model can be asked for; None for any other model. Raises: SettingsError."""
        if self.is_elsewhere(decision.model_id):
            return None
        return self._models.assistant(decision.model_id)

    def larger(self, decision: Decision) -> Decision | None:
        """The model that may take over from an assistant model which the client did not name: the next one of
        the route, else the larger model of the catalog."""
        if decision.reason == "named" or self.assistant(decision) is None:
            return None
        others = self.chat_models(decision.larger)
        larger = others[0] if others else self._models.larger(decision.model_id)
        if larger is None or larger in decision.too_expensive:
            return None
        return replace(decision, model_id=larger)

    def chat_models(self, model_ids: Sequence[str]) -> list[str]:
        """Those that are no assistant models."""
        return [
            one
            for one in model_ids
            if self.is_elsewhere(one) or self._models.assistant(one) is None
        ]

    def escalated(
        self, larger: Decision, confidence: Confidence | None, *, is_outside: bool = False
    ) -> Decision:
        """The decision for the larger model, with the confidence that was too low. `is_outside`: by the scope
        gate of the assistant model."""
        reason: Reason = "out_of_scope" if is_outside else "escalated"
        if larger.route is None:
            return replace(larger, reason=reason, confidence=confidence)
        why = "the assistant model abstained" if confidence else "not for the assistant model"
        step = TraceStep(
            f"model {larger.model_id}", reason, "by the scope gate" if is_outside else why
        )
        trace = (*larger.trace, step)
        return replace(larger, reason=reason, confidence=confidence, trace=trace)

    def judged(
        self, decision: Decision, trial: Trial | None, larger: str | None, *, is_unsure: bool
    ) -> Decision:
        """The decision after a trial of its model: the `larger` one answers, or (None) the same one."""
        said = str(trial) if trial is not None else "no tokens"
        outcome = "is not sure" if is_unsure else "is sure"
        trace = (*decision.trace, TraceStep(f"model {decision.model_id}", outcome, said))
        if larger is None:
            return replace(decision, trace=trace)
        trace = (*trace, TraceStep(f"model {larger}", "escalated", "the next candidate"))
        return replace(decision, model_id=larger, reason="escalated", trace=trace)

    def suited(
        self,
        origin: RequestOrigin,
        decision: Decision,
        spec: GenerateSpec,
        preferences: AssistantPreferences = NO_PREFERENCES,
    ) -> GenerateSpec:
        """The request in the form that its model takes: for an assistant model a chat becomes a question
        about intents.

        Raises: UnsuitedRequest, InvalidParameter, Forbidden, SettingsError.
        """
        assistant = self.assistant(decision)
        if assistant is None or spec.intent_question is not None:
            return spec
        if spec.prompts[0].messages is None:
            return spec
        is_named = decision.reason == "named"
        question = make_intent_question(
            spec,
            assistant,
            model_id=decision.model_id,
            domain=preferences.domain,
            allowed=origin.tools,
            tells=self.options.tells(preferences, is_named=is_named),
            book=self.options.read_book() if spec.tools is not None else None,
        )
        return msgspec.structs.replace(spec, intent_question=question, tools=None, stop=[])

    def sampling(self, decision: Decision) -> Sampling:
        """The model's own sampling values, for what a request leaves open; an upstream has its own."""
        if self.is_elsewhere(decision.model_id):
            return BLANK
        return self._models.sampling(decision.model_id)


def assistant_options(settings: RoutingSettings) -> AssistantOptions:
    """How assistant models answer. Raises: SettingsError for a mapping of tools that cannot be read."""
    options = AssistantOptions(settings)
    # The bundled mapping is read when a request needs it.
    if isinstance(settings.assistant_tools, Path):
        options.read_book()
    return options
