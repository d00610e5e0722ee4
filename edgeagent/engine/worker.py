"""The engine worker process: `python -m edgeagent.engine.worker FD DAEMON_PID`.

It has four threads. The main thread runs the engine and owns the llama.cpp context, `receiver` reads
messages from the daemon, `intake` renders and tokenizes prompts, `tokenizer` answers what needs the
vocabulary only. The process ends when its socket does. For a model that makes embeddings or ranks documents
it runs `embedding.worker` or `embedding.rerank_worker` in place of `GenerationWorker`; for a sentence
encoder that was taught intents, `embedding.intent_worker`.
"""

from __future__ import annotations

import logging
import os
import sys
import time
from pathlib import Path

import msgspec

from edgeagent.engine import protocol
from edgeagent.engine.batching.arrival_pause import ArrivalPause
from edgeagent.engine.batching.backlog import full
from edgeagent.engine.batching.engine import Engine
from edgeagent.engine.batching.idle_measurement import IdleMeasurement
from edgeagent.engine.batching.sequence import Request, Sequence
from edgeagent.engine.batching.step_runner import LlamaRunner
from edgeagent.engine.embedding.intent_worker import IntentWorker
from edgeagent.engine.embedding.rerank_worker import RerankWorker
from edgeagent.engine.embedding.worker import EmbeddingWorker
from edgeagent.engine.intents.intent_classifier import IntentClassifier
from edgeagent.engine.llama import zero_pages
from edgeagent.engine.llama.model import Llama
from edgeagent.engine.process import helper_process
from edgeagent.engine.process.adapter_files import AdapterFiles
from edgeagent.engine.process.model_file import ModelFile
from edgeagent.engine.process.tokenizer_thread import TokenizerThread
from edgeagent.engine.prompt.prompt_fitting import slot_tokens
from edgeagent.engine.prompt.request_preparation import Intake
from edgeagent.errors import EdgeAgentError, InvalidParameter, QueueFull
from edgeagent.types.answer import PromptFacts, TokenChunk
from edgeagent.types.engine_config import EngineConfig, EngineFacts, Task
from edgeagent.types.generation import GenerateSpec
from edgeagent.types.kv_state import (
    CachedLengthSpec,
    CachedTokensSpec,
    LoadCellsSpec,
    ReadCellsSpec,
    StateQuestion,
)
from edgeagent.types.step_costs import StepCosts
from edgeagent.types.template import TemplateFacts
from edgeagent.types.unary_requests import (
    CountSpec,
    DetokenizeSpec,
    EmbedSpec,
    PromptHeadSpec,
    RerankSpec,
    TemplateSpec,
    TokenizeSpec,
)
from edgeagent.worker import confinement, entry
from edgeagent.worker.channel import Channel
from edgeagent.worker.loop import Loop
from edgeagent.worker.loop_core import current_core

logger = logging.getLogger(__name__)


class GenerationWorker:
    """One loaded model, answering one daemon."""

    def __init__(self, channel: Channel, config: EngineConfig, started_s: float) -> None:
        self._channel = channel
        self._config = config
        self._requests: dict[int, Request] = {}
        self._loop = Loop(channel)
        self._llama = Llama(config)
        self._runner = LlamaRunner(self._llama, config)  # has cells, too
        # Before the first step, which starts threads.
        mappings = confinement.private_mappings() if config.cells_on_demand else []
        given_back = zero_pages.n_bytes(zero_pages.give_back(mappings))
        self._llama.warm_up()
        template = config.chat_template or self._llama.chat_template()
        self._engine = Engine(
            config,
            self._runner,
            self._llama.n_ctx,
            emit=self._emit,
            refuse=self._refuse,
            forget=self._forget,
            prepared=self._tell_facts,
        )
        self._engine.parking.untouched_bytes = min(given_back, self._llama.kv_bytes())
        self._measuring = (
            IdleMeasurement(self._engine, config.n_threads, self._tell_costs)
            if config.measures_steps and config.step_costs is None
            else None
        )
        self._intake = Intake(
            config,
            self._llama,
            template,
            submit=self._submit,
            refuse=self._refuse,
            tell=self._tell,
            prepared=self._tell_facts,
            too_many=self._queue_full,
        )
        self._pause = ArrivalPause(lambda: self._intake.is_preparing)
        self._tokenizer = TokenizerThread(config, self._llama, channel)
        self._facts = self._describe(self._intake.has_template, template, started_s)

    def _describe(self, has_template: bool, template: str | None, started_s: float) -> EngineFacts:
        return EngineFacts(
            pid=os.getpid(),
            description=self._llama.description,
            n_params=self._llama.n_params,
            n_vocab=self._llama.n_vocab,
            n_ctx=self._llama.n_ctx,
            n_ctx_slot=slot_tokens(self._config, self._llama),
            n_ctx_train=self._llama.n_ctx_train,
            n_seq=self._config.n_seq,
            n_threads=self._config.n_threads,
            weights_bytes=self._llama.weights_bytes,
            kv_bytes=self._llama.kv_bytes(),
            has_chat_template=has_template,
            can_share_prefix=self._llama.can_trim,
            state_kind=self._runner.state_kind,
            load_ms=1e3 * (time.monotonic() - started_s),
            bos_token=self._name_of(self._llama.bos),
            eos_token=self._name_of(self._llama.eos),
            chat_template=template,
            adapters=tuple(sorted(self._llama.adapters.ids)),
        )

    def _name_of(self, token: int | None) -> str:
        return self._llama.text_of(token) if token is not None else ""

    # --- engine thread

    def run(self) -> None:
        """Serve until the daemon goes or ends this process. Raises whatever the engine could not handle."""
        pulses = [*self._intake.pulses, self._tokenizer.pulse]
        stepper = self._measuring or self._engine
        self._loop.run(self._facts, stepper, self._handle, self._rss_bytes, pulses, self._pause_s)

    def _pause_s(self) -> float:
        return self._pause.seconds(may_wait=self._engine.has_only_prompts)

    def _rss_bytes(self) -> int:
        return confinement.rss_bytes() + self._intake.rss_bytes()

    def _emit(self, chunks: list[tuple[int, TokenChunk]]) -> None:
        self._channel.send(protocol.Step(chunks, current_core()))

    def _forget(self, request_id: int) -> None:
        self._requests.pop(request_id, None)

    def _tell_costs(self, costs: StepCosts) -> None:
        self._channel.send(protocol.StepsMeasured(costs))

    def _answer(self, request_id: int, question: StateQuestion) -> None:
        try:
            self._channel.send(
                protocol.Result(request_id, self._engine.kv_transfer.answer(question))
            )
        except EdgeAgentError as exc:
            self._channel.refuse(request_id, exc)

    # --- any thread

    def _queue_full(self, spec: GenerateSpec) -> QueueFull:
        """The refusal of a request before its prompt was prepared."""
        estimate = self._engine.estimate
        if spec.is_retry:
            estimate.came_back(spec.scope)
        return full(self._config, estimate, spec)

    def _refuse(self, request_id: int, error: Exception) -> None:
        self._requests.pop(request_id, None)
        self._channel.refuse(request_id, error)

    def _tell_facts(self, request_id: int, facts: PromptFacts) -> None:
        self._channel.send(protocol.Prepared(request_id, facts))

    # --- intake thread

    def _submit(self, sequences: list[Sequence]) -> None:
        def submit() -> None:
            self._pause.arrive()
            self._engine.submit(sequences)

        self._loop.post(submit)

    def _tell(self, request_id: int, value: int | list[int] | TemplateFacts) -> None:
        self._forget(request_id)
        self._channel.send(protocol.Result(request_id, value))

    # --- receiver thread

    def _take(self, request: Request) -> None:
        self._requests[request.request_id] = request
        if self._measuring is not None:
            self._measuring.interrupt()
        if not self._intake.put(request):
            self._refuse(
                request.request_id,
                self._queue_full(request.spec),
            )

    def _handle(self, message: protocol.ToWorker) -> None:
        match message:
            case protocol.Generate(request_id, spec):
                self._engine.interrupt()
                self._take(Request(request_id, spec, time.monotonic()))
            case protocol.Ask(request_id, TemplateSpec()):
                nothing = GenerateSpec(prompts=[])
                self._take(Request(request_id, nothing, time.monotonic(), is_about_template=True))
            case protocol.Ask(request_id, CountSpec(request=spec)):
                self._take(Request(request_id, spec, time.monotonic(), is_counted=True))
            case protocol.Ask(request_id, PromptHeadSpec(request=spec)):
                self._take(Request(request_id, spec, time.monotonic(), is_about_head=True))
            case protocol.Ask(request_id, EmbedSpec() | RerankSpec()):
                self._refuse(
                    request_id,
                    InvalidParameter(
                        f"Model {self._config.model_id} generates text, and makes no embeddings and ranks "
                        "nothing: GET /v1/models lists those that do.",
                        param="model",
                    ),
                )
            case protocol.Ask(request_id, TokenizeSpec() | DetokenizeSpec() as question):
                self._tokenizer.answer(request_id, question)
            case protocol.Ask(
                request_id,
                (
                    CachedTokensSpec() | ReadCellsSpec() | CachedLengthSpec() | LoadCellsSpec()
                ) as about,
            ):
                self._loop.post(lambda: self._answer(request_id, about))
            case protocol.Cancel(request_id):
                cancelled = self._requests.get(request_id)
                if cancelled is not None:
                    cancelled.is_cancelled = True
                    if cancelled in self._engine.prefilling:
                        self._runner.abort()
                    self._loop.wake()
            case protocol.ForgetPrefixes(scope):
                for request in list(self._requests.values()):
                    if scope is None or request.spec.scope == scope:
                        request.is_forgotten = True
                if scope is None:
                    self._intake.forget()
                self._loop.post(lambda: self._engine.forget_prefixes(scope))


WORKERS: dict[Task, type[GenerationWorker | EmbeddingWorker]] = {
    "generate": GenerationWorker,
    "embed": EmbeddingWorker,
    "rerank": RerankWorker,
}


def load(
    channel: Channel, config: EngineConfig, daemon_pid: int, started_s: float
) -> GenerationWorker | EmbeddingWorker:
    """Confine this process and load the model. Raises: ModelUnusable, ModelAltered, GGUFRefused."""
    if config.task == "generate":
        helper_process.begin()
    file = ModelFile(config)
    adapters = AdapterFiles(config)
    confinement.enter(read=[file.path, *adapters.paths], parent=daemon_pid, asks_mappings=True)
    inspected = msgspec.structs.replace(file.inspected(), adapters=adapters.inspected())
    worker = _worker(channel, inspected, started_s)
    file.check()
    return worker


def _worker(
    channel: Channel, config: EngineConfig, started_s: float
) -> GenerationWorker | EmbeddingWorker:
    if config.task == "embed":
        classifier = IntentClassifier.read(Path(config.path), config.model_id)
        if classifier is not None:
            return IntentWorker(channel, config, started_s, classifier)
    return WORKERS[config.task](channel, config, started_s)


if __name__ == "__main__":
    entry.run(sys.argv, protocol.decode_to_worker, load)
