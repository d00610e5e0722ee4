"""The daemon's side of one engine worker: answers as streams of chunks, and questions with one result."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from edgeagent.engine import protocol
from edgeagent.engine.stream_pacer import StreamPacer
from edgeagent.types.answer import PromptFacts, TokenChunk
from edgeagent.types.engine_config import EngineConfig, EngineFacts, EngineHealth
from edgeagent.types.generation import GenerateSpec
from edgeagent.types.step_costs import StepCosts
from edgeagent.types.unary_requests import Question
from edgeagent.types.worker_config import ComputeLimits
from edgeagent.worker.client import OnDeath, WorkerClient
from edgeagent.worker.loop_core import UNKNOWN, loop_core
from edgeagent.worker.reply_stream import ReplyStream


class Generation(ReplyStream[TokenChunk]):
    """The chunks of one request, of all its answers. `facts` is set once its prompts are made. One that
    `is_live` is read as it is written: tokens that come at once are passed on one after another."""

    def __init__(self, client: EngineClient, request_id: int, n_answers: int) -> None:
        super().__init__(request_id, client.cancel)
        self._client = client
        self._n_open = n_answers
        self.facts: PromptFacts | None = None
        self.is_live = False

    @property
    def origin(self) -> tuple[EngineClient, int]:
        """The engine that runs the request, and the number of the request there."""
        return self._client, self.request_id

    def is_last(self, chunk: TokenChunk) -> bool:
        """Whether the chunk ends the last open answer."""
        if chunk.finish is not None:
            self._n_open -= 1
        return self._n_open == 0


class EngineClient(WorkerClient):
    """A running engine worker: a model that generates text, makes embeddings or ranks documents."""

    module = "edgeagent.engine.worker"
    switches_waits = True
    decode = staticmethod(protocol.decode_to_daemon)

    config: EngineConfig
    facts: EngineFacts
    health: EngineHealth = EngineHealth()
    # Called with what the worker measures while it is idle, if its configuration asks for it.
    on_step_costs: Callable[[StepCosts], None] | None = None

    def __init__(
        self, config: EngineConfig, on_death: OnDeath = lambda client, status: None
    ) -> None:
        super().__init__(config, on_death)
        self._pacer = StreamPacer(self._deliver)
        self._core = UNKNOWN

    def generate(self, spec: GenerateSpec) -> Generation:
        """Send a request. Raises: EngineDied when the worker has ended."""
        generation = Generation(self, self._new_id(), spec.n_answers)
        self._open(generation, protocol.Generate(generation.request_id, spec))
        return generation

    async def ask(self, question: Question) -> Any:
        """The worker's answer to a question: Vectors, Scores, list[int], str or int, by the question.

        Cancelling the task that waits here cancels the work. Raises: EngineDied, or the worker's refusal.
        """
        request_id = self._new_id()
        return await self._ask(request_id, protocol.Ask(request_id, question))

    def forget_prefixes(self, scope: str | None) -> None:
        """Drop what is cached of ended requests of one scope, or of all."""
        if self.is_alive:
            self._send(protocol.ForgetPrefixes(scope))

    def _receive(self, message: Any) -> None:
        if type(message) is protocol.Step:  # asked first: there is one for each token
            if message.core != self._core:
                self._follow(message.core)
            # The clock of the event loop.
            self._pacer.pass_on(message.chunks, time.monotonic(), self._is_live)
            if not self._streams:
                self._follow(UNKNOWN)
        else:
            super()._receive(message)

    def _is_live(self, request_id: int) -> bool:
        """Whether tokens of a request may be held: other programs need the cores for more than that."""
        stream = self._streams.get(request_id)
        is_live = isinstance(stream, Generation) and stream.is_live
        return is_live and self.config.smooth_streams and not self.limits.n_cores_taken

    def _follow(self, core: int) -> None:
        """Leave the core that leads the engine's steps to it, unless others use cores, too."""
        self._core = core
        if core == UNKNOWN or self.limits.n_cores_taken:
            loop_core.end(self)
        else:
            loop_core.leave(self, core, self.limits.n_threads)

    def set_limits(self, limits: ComputeLimits) -> None:
        if limits != self.limits:
            self._follow(UNKNOWN)  # until the next step
            if limits.n_cores_taken:
                self._pacer.flush_all()
        super().set_limits(limits)

    def cancel(self, request_id: int) -> None:
        self._pacer.drop(request_id)
        super().cancel(request_id)
        if not self._streams:
            self._follow(UNKNOWN)

    def connection_lost(self, exc: Exception | None) -> None:
        self._pacer.flush_all()
        self._follow(UNKNOWN)
        super().connection_lost(exc)

    def _receive_own(self, message: Any) -> None:
        match message:
            case protocol.StepsMeasured(costs):
                if self.on_step_costs is not None:
                    self.on_step_costs(costs)
            case protocol.Prepared(request_id, facts):
                generation = self._streams.get(request_id)
                if isinstance(generation, Generation):
                    generation.facts = facts
