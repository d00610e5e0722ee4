"""From a `Generate` frame to sequences the engine can queue: render, tokenize, check the fit."""

from __future__ import annotations

import logging
import threading
from array import array
from collections.abc import Callable, Iterable

import msgspec

from edgeagent.engine.batching.fair_queue import FairQueue
from edgeagent.engine.batching.sequence import Request, Sequence
from edgeagent.engine.intents.intent_scoring import CallTokens, Choice, Offer
from edgeagent.engine.llama.model import Llama
from edgeagent.engine.llama.sampler import Sampler
from edgeagent.engine.output.logprobs import Logprobs
from edgeagent.engine.output.output_parser import Calling, Reader, Takeover
from edgeagent.engine.output.prompt_scores import PromptScores
from edgeagent.engine.output.text_stream import TextStream
from edgeagent.engine.prompt.call_loop import without_looping_tools
from edgeagent.engine.prompt.rendered_prompt import Built, PromptBuilder, token_of
from edgeagent.engine.prompt.truncation import fewest_dropped, turns_of, without_oldest
from edgeagent.engine.structured.constraint import Constraint
from edgeagent.engine.structured.grammar import Vocabulary
from edgeagent.engine.structured.grammar_compiler import Grammars
from edgeagent.engine.structured.json_completion import Ending
from edgeagent.engine.structured.output_spec import Wanted
from edgeagent.errors import (
    ContextLengthExceeded,
    EdgeAgentError,
    EngineFailed,
    InvalidParameter,
    QueueFull,
)
from edgeagent.types.answer import PromptFacts
from edgeagent.types.engine import EngineConfig
from edgeagent.types.generation import GenerateSpec
from edgeagent.types.intents import IntentQuestion
from edgeagent.types.prompt import Prompt
from edgeagent.types.sampling import Sampling
from edgeagent.types.template import TemplateFacts
from edgeagent.worker.heartbeat import Pulse
from edgeagent.worker.refusals import queue_full

logger = logging.getLogger(__name__)


class Intake:
    """A thread that prepares requests, those of each key in turn, so that templates and tokenizing never
    hold up the engine. `pulses` tell whether it and the thread that compiles get on.

    Prepared sequences go to `submit`, errors to `refuse`, what is only counted or asked to `tell`, and
    what is known of a request once its prompts are made to `prepared`.
    `close()` may be called twice.
    """

    def __init__(
        self,
        config: EngineConfig,
        llama: Llama,
        template: str | None,
        *,
        submit: Callable[[list[Sequence]], None],
        refuse: Callable[[int, Exception], None],
        tell: Callable[[int, int | TemplateFacts], None],
        prepared: Callable[[int, PromptFacts], None] = lambda request_id, facts: None,
    ) -> None:
        self._config = config
        self._llama = llama
        self._n_slot = slot_tokens(config, llama)
        self._pulse = Pulse()
        self._prompts = PromptBuilder(
            llama,
            template,
            config.template_timeout_s,
            config.model_id,
            beat=self._pulse.beat,
            source="model" if config.chat_template is None else "installed",
        )
        self._calls = CallTokens(llama, self._prompts, config.model_id)
        self._submit = submit
        self._refuse = refuse
        self._tell = tell
        self._prepared = prepared
        self._grammars = Grammars(
            lambda: vocabulary_of(llama),
            config.grammar_timeout_s,
            config.queue_limit,
            ready=self._put_again,
            refuse=refuse,
            too_many=self._too_many,
        )
        self.pulses = (self._pulse, self._grammars.pulse)
        self._queue: FairQueue[Request] = FairQueue(config.queue_limit + config.n_seq)
        self._thread = threading.Thread(target=self._loop, name="intake", daemon=True)
        self._thread.start()

    def put(self, request: Request) -> bool:
        """False when too many requests wait to be prepared."""
        has_place, lost = self._queue.put(request.spec.scope, request)
        if lost is not None:
            self._refuse(lost.request_id, self._too_many())
        return has_place

    @property
    def has_template(self) -> bool:
        """Whether the model, or we for it, have a chat template."""
        return self._prompts.has_template

    def rss_bytes(self) -> int:
        """Resident memory of the template process."""
        return self._prompts.rss_bytes()

    def _loop(self) -> None:
        try:
            with self._pulse.job():
                self._prompts.learn()  # before the first request, which would wait for it
        except EdgeAgentError as exc:
            logger.warning("template_unknown model=%s %s", self._config.model_id, exc.message)
        while (request := self._queue.get()) is not None:
            try:
                with self._pulse.job():
                    self._do(request)
            except EdgeAgentError as exc:
                self._refuse(request.request_id, exc)
            except Exception as exc:  # one bad request must not end the thread
                self._refuse(
                    request.request_id,
                    EngineFailed(f"Preparing the prompt failed: {type(exc).__name__}."),
                )

    def _do(self, request: Request) -> None:
        request.spec = without_looping_tools(request.spec)
        if request.is_counted:
            spec = request.spec
            n_tokens = sum(len(prompt.tokens) for prompt, _ in self._fitted_all(spec))
            self._tell(request.request_id, n_tokens)
        elif request.is_about_template:
            self._tell(request.request_id, self._prompts.facts())
        elif self._has_grammar(request):
            sequences = self.prepare(request)
            assert request.facts is not None
            self._prepared(request.request_id, request.facts)
            self._submit(sequences)

    def _has_grammar(self, request: Request) -> bool:
        """False where it is being compiled: the request comes again. Raises: the form's refusal."""
        spec = request.spec
        if (spec.form is None and spec.tools is None) or request.grammar is not None:
            return True
        request.wanted = self._wanted(spec)
        request.grammar = self._grammars.find(request.wanted)
        if request.grammar is not None:
            return True
        if not self._grammars.put(request):
            raise self._too_many()
        return False

    def _wanted(self, spec: GenerateSpec) -> Wanted:
        if spec.tools is None:
            return Wanted(spec.form)
        family = self._prompts.family
        return Wanted(spec.form, spec.tools, family, self._marker_tokens(family.markers))

    def _marker_tokens(self, names: Iterable[str]) -> dict[str, int]:
        """Those of the markers that are tokens which add no text of their own."""
        found = {name: token_of(self._llama, name) for name in names}
        return {
            name: token
            for name, token in found.items()
            if token is not None and not self._llama.piece(token)
        }

    def _put_again(self, request: Request) -> None:
        if not self.put(request):
            self._refuse(request.request_id, self._too_many())

    def _too_many(self) -> QueueFull:
        return queue_full(self._config.model_id, self._config.queue_limit)

    def prepare(self, request: Request) -> list[Sequence]:
        """The answers to be of one request.

        Raises: ContextLengthExceeded, TemplateFailed, InvalidParameter.
        """
        spec = request.spec
        if spec.intent_question is not None:
            return self._choices(request, spec.intent_question)
        for token in spec.sampling.logit_bias:
            if not 0 <= token < self._llama.n_vocab:
                raise InvalidParameter(
                    f"logit_bias names token {token}, the vocabulary has ids 0 to "
                    f"{self._llama.n_vocab - 1}: use ids of this model.",
                    param="logit_bias",
                )
        fitted = self._fitted_all(spec)
        prompts = [prompt for prompt, _ in fitted]
        limits = [self._max_new(len(prompt.tokens), spec) for prompt in prompts]
        request.facts = facts_of(
            spec,
            limits,
            n_prompt=sum(len(prompt.tokens) for prompt in prompts),
            n_dropped=sum(n_dropped for _, n_dropped in fitted),
        )
        n_top = spec.logprobs if spec.scores_prompt else None
        scores = [PromptScores(p.tokens, n_top) if n_top is not None else None for p in prompts]
        return [
            self._sequence(
                request,
                prompts[index // spec.n],
                limits[index // spec.n],
                index,
                scores[index // spec.n],
            )
            for index in range(spec.n_answers)
        ]

    def _fitted_all(self, spec: GenerateSpec) -> list[tuple[Built, int]]:
        fitted = []
        for prompt in spec.prompts:
            self._pulse.beat()
            fitted.append(self._fitted(prompt, spec))
        return fitted

    def _choices(self, request: Request, intent_question: IntentQuestion) -> list[Sequence]:
        """Answers that are a choice among intents. They end by themselves: a bound only shortens them."""
        spec = request.spec
        tokens = self._calls.prompt(intent_question.text)
        offer = Offer.of(intent_question, self._calls)
        room = self._max_new(len(tokens), msgspec.structs.replace(spec, max_tokens=None))
        request.facts = PromptFacts(len(tokens))
        return [
            Sequence(
                request=request,
                index=index,
                tokens=tokens[:],
                n_prompt=len(tokens),
                max_new=min(room, spec.max_tokens or room),
                sampler=Sampler(Sampling(temperature=0), self._llama.n_vocab, [], index),
                text=TextStream([]),
                choice=Choice(offer),
            )
            for index in range(spec.n_answers)
        ]

    def _sequence(
        self,
        request: Request,
        built: Built,
        max_new: int,
        index: int,
        scores: PromptScores | None,
    ) -> Sequence:
        spec, tokens = request.spec, built.tokens
        last_n = spec.sampling.repeat_last_n
        takeover = _takeover(request, built.is_reasoning)
        constraint = later = None
        if request.grammar is not None:
            made = Constraint(request.grammar, is_later=takeover != "at once")
            constraint, later = (made, None) if takeover == "at once" else (None, made)
        # What an answer must begin with is prefilled with its prompt.
        forced = constraint.opening if constraint is not None else []
        opening = forced[:max_new]
        tail = list(tokens[-last_n:]) if last_n else []
        sampler = Sampler(spec.sampling, self._llama.n_vocab, tail, index)
        for token in opening:
            sampler.accept(token)
        return Sequence(
            request=request,
            index=index,
            tokens=tokens + array("i", opening),
            n_prompt=len(tokens),
            max_new=max_new,
            sampler=sampler,
            text=TextStream(spec.stop),
            constraint=constraint,
            later=later,
            ending=_ending(request, max_new),
            unsaid=forced[max_new:],
            must_form=takeover == "after reasoning",
            reader=self._reader(request, built.is_reasoning, takeover),
            logprobs=Logprobs(spec.logprobs) if spec.logprobs is not None else None,
            scores=scores,
        )

    def _reader(self, request: Request, is_reasoning: bool, takeover: Takeover) -> Reader | None:
        """What takes the answer apart, where it can have more parts than text."""
        spec, reasoning = request.spec, self._prompts.reasoning
        is_chat = spec.prompts[0].messages is not None
        if not is_chat or (spec.tools is None and reasoning is None):
            return None
        family = request.wanted.family if request.wanted is not None else None
        calling = None
        names: list[str] = [*(reasoning or ())]
        if spec.tools is not None and family is not None:
            tools = frozenset(tool.name for tool in spec.tools.tools)
            calling = Calling(family, tools, may_repeat=self._prompts.is_taught)
            names += family.markers
        return Reader(
            spec.stop,
            markers={token: name for name, token in self._marker_tokens(names).items()},
            reasoning=reasoning,
            is_reasoning=is_reasoning,
            calling=calling,
            is_call=spec.tools is not None and spec.tools.choice == "required",
            takeover=takeover,
        )

    def _fitted(self, prompt: Prompt, spec: GenerateSpec) -> tuple[Built, int]:
        """A prompt's tokens, and how many messages were left out so that they fit with the answer."""
        built = self._prompts.build(prompt, spec.tools)
        messages = prompt.messages
        if not prompt.may_drop or messages is None:
            return built, 0
        # Without a length asked for, an answer should have room to say something.
        n_answer = spec.max_tokens or min(self._config.default_max_tokens, self._n_slot // 4)
        most = self._n_slot - min(n_answer, self._n_slot // 2 if spec.clamps else n_answer)
        tried: dict[int, Built] = {0: built}

        def fits(n_turns: int) -> bool:
            if n_turns not in tried:
                self._pulse.beat()
                shorter = msgspec.structs.replace(
                    prompt, messages=without_oldest(messages, n_turns)
                )
                tried[n_turns] = self._prompts.build(shorter, spec.tools)
            return len(tried[n_turns].tokens) <= most

        n_turns = fewest_dropped(len(turns_of(messages)), fits)
        fits(n_turns)
        return tried[n_turns], len(messages) - len(without_oldest(messages, n_turns))

    def _max_new(self, n_prompt: int, spec: GenerateSpec) -> int:
        """Tokens the answer may have, refused here when prompt and answer can never fit."""
        room, asked = self._n_slot - n_prompt, spec.max_tokens
        is_bound = f"this model's maximum context length is {self._n_slot} tokens"
        if room < (1 if asked is None else min(1, asked)):
            raise ContextLengthExceeded(
                f"The prompt is too long for {self._config.model_id}: it has {n_prompt} tokens, and "
                f"{is_bound} with the answer. Shorten the history or raise engine.n_ctx.",
                param="messages",
            )
        if asked is None:
            return min(self._config.default_max_tokens, room)
        if asked > room and not spec.clamps:
            raise ContextLengthExceeded(
                f"The prompt is too long for so long an answer of {self._config.model_id}: the prompt has "
                f"{n_prompt} tokens and the answer may have {asked}, together {n_prompt + asked}, and "
                f"{is_bound}. Ask for at most {room} tokens, shorten the history or raise engine.n_ctx.",
                param="max_tokens",
            )
        return min(asked, room)

    def forget(self) -> None:
        """Drop the schemas that were compiled."""
        self._grammars.forget()

    def close(self) -> None:
        self._queue.close()
        self._thread.join(timeout=5)
        self._grammars.close()
        self._prompts.close()


def facts_of(
    spec: GenerateSpec, limits: list[int], *, n_prompt: int, n_dropped: int
) -> PromptFacts:
    """What is known once prompts of so many tokens may have answers of so many."""
    longest = max(limits)
    is_clamped = spec.max_tokens is not None and longest < spec.max_tokens
    return PromptFacts(n_prompt, max_tokens=longest if is_clamped else None, n_dropped=n_dropped)


def _takeover(request: Request, is_reasoning: bool) -> Takeover:
    """When the grammar of an answer takes over."""
    spec = request.spec
    if spec.form is None and spec.tools is None:
        return "never"
    if spec.form is None and spec.tools is not None and spec.tools.choice == "auto":
        return "with a call"
    return "after reasoning" if is_reasoning else "at once"


def vocabulary_of(llama: Llama) -> Vocabulary:
    """The model's tokens, for masks."""
    return Vocabulary(
        llama.vocabulary(), sorted(llama.end_tokens), llama.vocab_address, llama.tokenize_address
    )


def slot_tokens(config: EngineConfig, llama: Llama) -> int:
    """The most tokens one sequence may have. Never past the trained context: llama.cpp aborts there
    when positions are learned."""
    return min(llama.n_ctx, llama.n_ctx_train) if llama.n_ctx_train > 0 else llama.n_ctx


def _ending(request: Request, max_new: int) -> Ending | None:
    """JSON is closed for the model, calls included: clients read half an argument each in its own way."""
    grammar = request.grammar
    if grammar is None or grammar.closing is None:
        return None
    return Ending(max_new, grammar.growth)
