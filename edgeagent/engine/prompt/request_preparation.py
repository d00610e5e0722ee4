"""From a `Generate` message to sequences that the engine can queue: render, tokenize, check the fit."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from edgeagent.engine.batching.fair_queue import FairQueue
from edgeagent.engine.batching.sequence import Request, Sequence
from edgeagent.engine.batching.sequence_builder import SequenceBuilder
from edgeagent.engine.llama.model import Llama
from edgeagent.engine.prompt.prompt_fitting import PromptFitter
from edgeagent.engine.prompt.rendered_prompt import PromptBuilder
from edgeagent.engine.prompt.repeated_calls import without_looping_tools
from edgeagent.engine.structured.grammar import Vocabulary
from edgeagent.engine.structured.grammar_compiler import GrammarCompiler
from edgeagent.errors import EdgeAgentError, EngineFailed, QueueFull
from edgeagent.types.answer import PromptFacts
from edgeagent.types.engine_config import EngineConfig
from edgeagent.types.generation import GenerateSpec
from edgeagent.types.template import TemplateFacts
from edgeagent.worker.heartbeat import Pulse
from edgeagent.worker.refusals import deadline_exceeded

logger = logging.getLogger(__name__)


class Intake:
    """A thread that prepares requests, those of each API key in turn, so that templates and tokenizing
    never hold up the engine. `pulses` are those of this thread and of the one that compiles grammars.

    `submit` gets the sequences of a request, `refuse` its error, `tell` what was only counted or asked, and
    `prepared` the facts of a request once its prompts are made. `too_many` makes the refusal of a request
    that finds no place. `close()` may be called twice.
    """

    def __init__(
        self,
        config: EngineConfig,
        llama: Llama,
        template: str | None,
        *,
        submit: Callable[[list[Sequence]], None],
        refuse: Callable[[int, Exception], None],
        tell: Callable[[int, int | list[int] | TemplateFacts], None],
        too_many: Callable[[GenerateSpec], QueueFull],
        prepared: Callable[[int, PromptFacts], None] = lambda request_id, facts: None,
    ) -> None:
        self._config = config
        self._pulse = Pulse()
        self._prompts = PromptBuilder(
            llama,
            template,
            config.template_timeout_s,
            config.model_id,
            beat=self._pulse.beat,
            source="model" if config.chat_template is None else "installed",
        )
        self._fitter = PromptFitter(config, llama, self._prompts, self._pulse.beat)
        self._builder = SequenceBuilder(config, llama, self._prompts, self._fitter)
        self._submit = submit
        self._refuse = refuse
        self._tell = tell
        self._too_many = too_many
        self._prepared = prepared
        self._grammars = GrammarCompiler(
            lambda: vocabulary_of(llama),
            config.grammar_timeout_s,
            config.queue_limit,
            ready=self._put_again,
            refuse=refuse,
            too_many=too_many,
        )
        self.pulses = (self._pulse, *self._grammars.pulses)
        self._is_at_work = False
        self._queue: FairQueue[Request] = FairQueue(config.queue_limit + config.n_seq)
        self._thread = threading.Thread(target=self._loop, name="intake", daemon=True)
        self._thread.start()

    def put(self, request: Request) -> bool:
        """False when too many requests wait to be prepared."""
        has_place, lost = self._queue.put(request.spec.scope, request)
        if lost is not None:
            self._refuse(lost.request_id, self._too_many(lost.spec))
        return has_place

    @property
    def is_preparing(self) -> bool:
        """Whether sequences may be submitted soon. Any thread."""
        return self._is_at_work or not self._queue.is_empty

    @property
    def has_template(self) -> bool:
        """Whether there is a chat template: the model's own, an installed or a built-in one."""
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
            self._is_at_work = True
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
            self._is_at_work = False

    def _do(self, request: Request) -> None:
        now = time.monotonic()
        if request.is_overdue(now):
            raise deadline_exceeded(now - request.arrived_s)
        request.spec = without_looping_tools(request.spec)
        if request.is_counted:
            spec = request.spec
            n_tokens = sum(len(prompt.tokens) for prompt, _ in self._fitter.fit_all(spec))
            self._tell(request.request_id, n_tokens)
        elif request.is_about_head:
            head = self._prompts.head(request.spec.prompts[0], request.spec.tools)
            self._tell(request.request_id, head.tolist())
        elif request.is_about_template:
            self._tell(request.request_id, self._prompts.facts())
        elif self._has_grammar(request):
            sequences = self._builder.build(request)
            assert request.facts is not None
            self._prepared(request.request_id, request.facts)
            self._is_at_work = False  # before the engine looks, which would wait for what has come
            self._submit(sequences)

    def _has_grammar(self, request: Request) -> bool:
        """False while the grammar is compiled: the request comes again. Raises: the form's refusal."""
        if request.grammar is not None:
            return True
        request.output = self._builder.output_spec(request.spec)
        if request.output is None:
            return True
        request.grammar = self._grammars.find(request.output)
        if request.grammar is not None:
            return True
        if not self._grammars.put(request):
            raise self._too_many(request.spec)
        return False

    def _put_again(self, request: Request) -> None:
        if not self.put(request):
            self._refuse(request.request_id, self._too_many(request.spec))

    def forget(self) -> None:
        """Drop the schemas that were compiled."""
        self._grammars.forget()

    def close(self) -> None:
        self._queue.close()
        self._thread.join(timeout=5)
        self._grammars.close()
        self._prompts.close()


def vocabulary_of(llama: Llama) -> Vocabulary:
    """The tokens of the model, for grammars."""
    return Vocabulary(
        llama.vocabulary(), sorted(llama.end_tokens), llama.vocab_address, llama.tokenize_address
    )
