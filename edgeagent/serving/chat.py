"""One chat, from a client's input to an answer that can begin.

1. choose the model that the client names, the default one, or by a route (serving/model_choice.py)
2. make the engine's request: the input, and the model's own values where the input leaves them open; where
   the settings want it, a route tries its model on a few tokens first (routing/cascade.py)
3. an assistant model is asked about intents instead, and answers where
   a. the client named it, or no larger model may take over
   b. the rules of the client's tools decide the call
   c. it is sure of its intent, which it is asked first, and its scope gate finds the text in its scope
      (serving/assistant_consultation.py); the result of a call is not for it
4. escalate: the larger model answers what the assistant model does not do, has no room for or leaves open
5. the answer: lease, request, chunks, log (serving/answer.py continues with 6)

A text to continue takes steps 1 and 2 only.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace

from edgeagent.errors import (
    ContextLengthExceeded,
    EdgeAgentError,
    EngineBroken,
    EngineDied,
    EngineStarting,
    InsufficientMemory,
    InvalidParameter,
    ModelNotApproved,
    ModelNotFound,
    ModelUnusable,
    Unavailable,
    UpstreamUnavailable,
)
from edgeagent.routing.cascade import needs_trial, should_escalate
from edgeagent.routing.decision import Decision
from edgeagent.routing.intents import AssistantPreferences, UnsuitedRequest
from edgeagent.serving.answer import Answer, Preparation, Redirection, read_prompts
from edgeagent.serving.assistant_consultation import AssistantConsultation, Verdict
from edgeagent.serving.cascade_trial import run_trial
from edgeagent.serving.deadline import before
from edgeagent.serving.engines import Engines
from edgeagent.serving.model_choice import ModelChooser
from edgeagent.serving.request_origin import RequestOrigin
from edgeagent.serving.scope_judge import Models, ScopeJudge
from edgeagent.settings import Settings
from edgeagent.types.generation import Form, GenerateSpec
from edgeagent.types.prompt import Prompt
from edgeagent.types.sampling import Sampling
from edgeagent.types.tools import ToolUse

logger = logging.getLogger(__name__)

# Why a model cannot be used that another may replace.
LOAD_FAILURES = (
    EngineBroken,
    EngineDied,
    EngineStarting,
    InsufficientMemory,
    ModelNotApproved,
    ModelNotFound,
    ModelUnusable,
    UpstreamUnavailable,
)


def _no_tools(has_own: bool) -> ToolUse | None:
    return None


@dataclass(frozen=True, kw_only=True)
class ChatInput:
    """The wishes of a client for an answer, free of any dialect.

    `sampling` puts the client's values over those of the model. `tools` gives the tools of the request; its
    argument says whether the model has tools of its own. `metadata` may have `domain`, `escalate` and
    `calls` for assistant models, and `privacy` for routes. `has_tools`: the client offers tools. With
    `shows_trace` the answer has the whole decision about the model. `notes` say what was left out. `lora`: a
    LoRA adapter of the model, where it is named apart from it.
    """

    model: str | None
    prompts: list[Prompt]
    sampling: Callable[[Sampling], Sampling]
    tools: Callable[[bool], ToolUse | None] = _no_tools
    max_tokens: int | None = None
    clamps: bool = False
    stop: list[str] = field(default_factory=list)
    n: int = 1
    ignore_eos: bool = False
    priority: int = 0
    form: Form | None = None
    logprobs: int | None = None
    scores_prompt: bool = False
    tells_tokens: bool = False
    prediction: str = ""
    metadata: Mapping[str, str] = field(default_factory=dict)
    has_tools: bool = False
    shows_trace: bool = False
    notes: Sequence[str] = ()
    lora: str | None = None

    def spec(
        self, scope: str, defaults: Sampling, *, has_own: bool, adapter: str | None = None
    ) -> GenerateSpec:
        """The engine's request. Raises what `tools` raises."""
        return GenerateSpec(
            prompts=self.prompts,
            sampling=self.sampling(defaults),
            max_tokens=self.max_tokens,
            clamps=self.clamps,
            stop=self.stop,
            n=self.n,
            scope=scope,
            ignore_eos=self.ignore_eos,
            form=self.form,
            tools=self.tools(has_own),
            logprobs=self.logprobs,
            scores_prompt=self.scores_prompt,
            priority=self.priority,
            tells_tokens=self.tells_tokens,
            prediction=self.prediction,
            adapter=adapter,
        )


@dataclass(frozen=True)
class ChatRequest:
    """An engine's request and the model that it is for. `redirect` chooses another model of its route."""

    decision: Decision
    spec: GenerateSpec
    redirect: Redirection | None = None


class ChatService:
    """Answers chats and continues texts. Event loop's thread only."""

    def __init__(
        self, engines: Engines, chooser: ModelChooser, judge: ScopeJudge | None = None
    ) -> None:
        self._engines = engines
        self.chooser = chooser
        self._consultation = AssistantConsultation(engines, judge)

    @classmethod
    def judging(
        cls, engines: Engines, chooser: ModelChooser, models: Models, settings: Settings
    ) -> ChatService:
        """One that asks scope gates of `models`."""
        return cls(engines, chooser, ScopeJudge(engines, models, settings))

    async def close(self) -> None:
        """May be called twice."""
        await self._consultation.close()

    async def answer(
        self, origin: RequestOrigin, chat: ChatInput, prepare: Preparation | None = None
    ) -> Answer:
        """An answer that waits for `begin`; the caller must `release` it. Raises what `request` raises."""
        request = await self.request(origin, chat)  # 5
        return self.answer_to(origin, request, prepare=prepare, notes=chat.notes)

    def answer_to(
        self,
        origin: RequestOrigin,
        request: ChatRequest,
        *,
        prepare: Preparation | None = None,
        notes: Sequence[str] = (),
    ) -> Answer:
        """The answer to a request that is already made."""
        answer = Answer(
            origin, request.decision, request.spec, self._engines, prepare=prepare, notes=notes
        )
        if request.decision.route is not None:
            answer.on_death = self.chooser.routes.cool
        if request.redirect is not None:
            answer.redirect_with(request.redirect)
        return answer

    async def request(self, origin: RequestOrigin, chat: ChatInput) -> ChatRequest:
        """Choose the model and make its request.

        Raises: InvalidParameter, UnsuitedRequest, Forbidden, Unavailable, SettingsError, and what
        `Pool.lease` and the worker raise where an assistant model is asked.
        """
        request = await self._request(origin, chat)
        if request.decision.route is None:
            return request

        async def redirect(failed: frozenset[str]) -> tuple[Decision, GenerateSpec] | None:
            with suppress(Unavailable):
                other = await self._request(origin, chat, failed)
                return other.decision, other.spec
            return None

        return replace(request, redirect=redirect)

    async def _request(
        self, origin: RequestOrigin, chat: ChatInput, failed: frozenset[str] = frozenset()
    ) -> ChatRequest:
        decision = await self._ready_model(origin, chat, failed)  # 1
        if self.chooser.assistant(decision) is None:
            return await self._tried(origin, decision, chat)  # 2
        domain, calls = chat.metadata.get("domain"), flag(chat.metadata, "calls")
        preferences = AssistantPreferences(domain=domain, calls=calls)
        larger = self._larger(decision, chat.metadata)
        if larger is None:  # 3a
            spec = self._suited(origin, decision, chat, preferences)
            return ChatRequest(decision, spec)
        verdict: Verdict | None = None
        try:
            spec = self._suited(origin, decision, chat, preferences)
            question = spec.intent_question
            if question is not None and question.is_decided:  # 3b
                return ChatRequest(decision, spec)
            if question is None or question.reply is None:
                verdict = await self._consultation.of(decision, spec)  # 3c
                if verdict.is_accepted:
                    return ChatRequest(verdict.noted(decision), verdict.spec)
        except (UnsuitedRequest, ContextLengthExceeded):
            pass
        if verdict is not None:
            larger = replace(verdict.noted(decision), model_id=larger.model_id)
        escalated = self.chooser.escalated(
            larger,
            verdict.confidence if verdict is not None else None,
            is_outside=verdict is not None and verdict.is_outside,
        )  # 4
        return ChatRequest(escalated, self._spec(origin, escalated, chat))

    async def _ready_model(
        self, origin: RequestOrigin, chat: ChatInput, failed: frozenset[str]
    ) -> Decision:
        """The model of a request. One that a route has chosen is loaded; where that fails, the route chooses
        again without it, and avoids it for a while. Those that `failed` are not chosen.
        Raises: what `Pool.lease` raises where no other model can answer; DeadlineExceeded."""
        decision = self._choose(origin, chat, failed)
        while decision.route is not None:
            failure = await self._failure_to_load(origin, decision)
            if failure is None:
                return decision
            failed |= {decision.model_id}
            try:
                decision = self._choose(origin, chat, failed)
            except Unavailable:
                raise failure from None
        return decision

    def _choose(
        self, origin: RequestOrigin, chat: ChatInput, failed: frozenset[str] = frozenset()
    ) -> Decision:
        """The model that the client names, or that its route chooses."""
        decision = self.chooser.for_text(
            self.chooser.with_adapter(chat.model, chat.lora),
            origin,
            chat.prompts,
            metadata=chat.metadata,
            has_tools=chat.has_tools,
            has_schema=chat.form is not None,
            failed=failed,
        )
        return replace(decision, shows_trace=chat.shows_trace)

    async def _tried(
        self, origin: RequestOrigin, decision: Decision, chat: ChatInput
    ) -> ChatRequest:
        """The request to a model that is no assistant model; to the next one of its route, where its first
        tokens show that it guesses. The prompt of the trial stays in the KV cache."""
        settings = self.chooser.options.settings
        spec = self._spec(origin, decision, chat)
        others = self.chooser.chat_models(decision.larger)
        is_here = not self.chooser.is_elsewhere(decision.model_id)
        is_wanted = is_here and bool(others) and needs_trial(decision, spec, settings)
        if not is_wanted or not self._may_escalate(chat.metadata):
            return ChatRequest(decision, spec)
        trial = await run_trial(self._engines, decision.model_id, spec, settings)
        is_unsure = should_escalate(trial, settings)
        larger = await self._first_loaded(origin, decision, others) if is_unsure else None
        judged = self.chooser.judged(decision, trial, larger, is_unsure=is_unsure)
        if larger is None:
            return ChatRequest(judged, spec)
        return ChatRequest(judged, self._spec(origin, judged, chat))

    async def _first_loaded(
        self, origin: RequestOrigin, decision: Decision, model_ids: Sequence[str]
    ) -> str | None:
        """The first of these models that can be loaded; None where none can. Raises: DeadlineExceeded."""
        for model_id in model_ids:
            if await self._failure_to_load(origin, replace(decision, model_id=model_id)) is None:
                return model_id
        return None

    async def _failure_to_load(
        self, origin: RequestOrigin, decision: Decision
    ) -> EdgeAgentError | None:
        """Load a model of a route. One that fails is avoided for a while. Raises: DeadlineExceeded."""
        model_id = decision.model_id
        try:
            async with before(origin.deadline_s), self._engines.lease_for(origin, decision):
                return None
        except LOAD_FAILURES as exc:
            if not isinstance(exc, UpstreamUnavailable):  # each upstream has a breaker of its own
                self.chooser.routes.cool(model_id)
            logger.warning("route_fallback model=%s code=%s", model_id, exc.code)
            return exc

    def _may_escalate(self, metadata: Mapping[str, str]) -> bool:
        """Whether the settings and the client let another model take over. Raises: InvalidParameter."""
        wanted = flag(metadata, "escalate")
        return self.chooser.options.may_escalate if wanted is None else wanted

    def _larger(self, decision: Decision, metadata: Mapping[str, str]) -> Decision | None:
        """The model that may take over; None where there is none, or it may not."""
        return self.chooser.larger(decision) if self._may_escalate(metadata) else None

    def _spec(self, origin: RequestOrigin, decision: Decision, chat: ChatInput) -> GenerateSpec:
        has_own = self.chooser.assistant(decision) is not None
        defaults = self.chooser.sampling(decision)
        return chat.spec(origin.key_id, defaults, has_own=has_own, adapter=decision.adapter)

    def _suited(
        self,
        origin: RequestOrigin,
        decision: Decision,
        chat: ChatInput,
        preferences: AssistantPreferences,
    ) -> GenerateSpec:
        spec = self._spec(origin, decision, chat)
        return self.chooser.suited(origin, decision, spec, preferences)

    def complete(self, origin: RequestOrigin, text: ChatInput, *, echoes: bool = False) -> Answer:
        """The continuation of texts, as `answer`. With `echoes` the answer has its prompts as text."""
        request = self._plain_request(origin, text)
        if request.decision.route is not None:

            async def redirect(failed: frozenset[str]) -> tuple[Decision, GenerateSpec] | None:
                with suppress(Unavailable):
                    other = self._plain_request(origin, text, failed)
                    return other.decision, other.spec
                return None

            request = replace(request, redirect=redirect)
        answer = self.answer_to(origin, request, notes=text.notes)
        if echoes and self.chooser.is_elsewhere(request.decision.model_id):
            answer.prompt_texts = [prompt.text or "" for prompt in text.prompts]
        elif echoes:
            answer.prepare_with(lambda client: read_prompts(client, answer))
        return answer

    def _plain_request(
        self, origin: RequestOrigin, text: ChatInput, failed: frozenset[str] = frozenset()
    ) -> ChatRequest:
        name = self.chooser.with_adapter(text.model, text.lora)
        decision = self.chooser.for_plain_text(name, origin, text.prompts, failed)  # 1
        decision = replace(decision, shows_trace=text.shows_trace)
        defaults = self.chooser.sampling(decision)
        spec = text.spec(origin.key_id, defaults, has_own=False, adapter=decision.adapter)  # 2
        return ChatRequest(decision, spec)


def flag(metadata: Mapping[str, str], name: str) -> bool | None:
    """A boolean of the metadata; None where it is missing. Raises: InvalidParameter."""
    value = metadata.get(name)
    if value is None:
        return None
    if value not in ("true", "false"):
        raise InvalidParameter(
            f'`metadata.{name}` is {value[:80]!r}: write "true" or "false".', param="metadata"
        )
    return value == "true"
