"""Chooses the model of a request: resolves names and aliases, then asks the router.

This is the one place where a name that a client sent becomes a model.
"""

from __future__ import annotations

from dataclasses import replace

import msgspec

from edgeagent.catalog.assistant_intents import Assistant
from edgeagent.catalog.installed import InstalledModels
from edgeagent.routing import router
from edgeagent.routing.decision import Decision
from edgeagent.routing.intents import (
    DEFAULT_OPTIONS,
    NO_PREFERENCES,
    AssistantOptions,
    AssistantPreferences,
    make_intent_question,
)
from edgeagent.serving.request_origin import RequestOrigin
from edgeagent.types.engine import Task
from edgeagent.types.generation import GenerateSpec
from edgeagent.types.intents import Confidence
from edgeagent.types.sampling import Sampling

DEFAULT_NAMES = ("", "default")
TASKS: tuple[Task, ...] = ("generate", "embed", "rerank", "transcribe")


class ModelChooser:
    """Chooses among the installed models. Event loop's thread only."""

    def __init__(
        self, models: InstalledModels, options: AssistantOptions = DEFAULT_OPTIONS
    ) -> None:
        self._models = models
        self.options = options

    # ---- names

    def resolve(self, name: str | None) -> str | None:
        """The model that a name or an alias stands for; None for the default model."""
        if name is None or name in DEFAULT_NAMES:
            return None
        name = self._models.named(name)
        return None if name in DEFAULT_NAMES else name

    def model_id(self, name: str) -> str:
        """The id behind a name, `default` included. Raises: Unavailable where no text model is installed."""
        return self.resolve(name) or self.for_text(None).model_id

    # ---- the model of a request

    def for_text(self, name: str | None) -> Decision:
        """The model for a chat. Raises: InvalidParameter, Unavailable (routing/router.py)."""
        return router.text_model(self.resolve(name), self._names())

    def for_plain_text(self, name: str | None) -> Decision:
        """The model for a text to continue: an assistant model, which does not continue texts, gives way to
        its larger model where that is installed. Raises as `for_text`."""
        decision = self.for_text(name)
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
        if model_id is not None:
            self._models.find(model_id)
        return router.any_model(model_id, self._names())

    def _names(self) -> router.ModelNames:
        by_task = {task: self._models.with_task(task) for task in TASKS}
        return router.ModelNames(by_task, self._models.default_id())

    # ---- assistant models

    def assistant(self, decision: Decision) -> Assistant | None:
        """What an assistant model can be asked for; None for any other model. Raises: SettingsError."""
        return self._models.assistant(decision.model_id)

    def larger(self, decision: Decision) -> Decision | None:
        """The model that may take over from an assistant model which the client did not name."""
        if decision.reason != "default" or self.assistant(decision) is None:
            return None
        larger = self._models.larger(decision.model_id)
        return replace(decision, model_id=larger) if larger is not None else None

    def escalated(self, larger: Decision, confidence: Confidence | None) -> Decision:
        """The decision for the larger model, with the confidence that was too low."""
        return replace(larger, reason="escalated", confidence=confidence)

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
        """The model's own sampling values, for what a request leaves open."""
        return self._models.sampling(decision.model_id)
