"""A thread for what needs the vocabulary and not the context: cutting texts into tokens and back."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from typing import Any

from edgeagent.engine import protocol
from edgeagent.engine.llama.model import Llama
from edgeagent.engine.process.heartbeat import Pulse
from edgeagent.engine.process.loop import Channel
from edgeagent.errors import EdgeAgentError, EngineFailed, InvalidParameter, QueueFull
from edgeagent.types import DetokenizeSpec, EngineConfig, TokenizeSpec

Job = Callable[[], None]


class Clerk:
    """Does jobs one after another; a job that raises is refused and costs nobody else anything."""

    def __init__(self, config: EngineConfig, llama: Llama, channel: Channel) -> None:
        self._config = config
        self._llama = llama
        self._channel = channel
        self.pulse = Pulse()
        self._queue: queue.Queue[tuple[int, Job]] = queue.Queue(config.queue_limit)
        self._thread = threading.Thread(target=self._loop, name="clerk", daemon=True)
        self._thread.start()

    def put(self, request_id: int, job: Job) -> bool:
        """Queue a job. False: too many wait, its request is refused."""
        try:
            self._queue.put_nowait((request_id, job))
            return True
        except queue.Full:
            self._channel.refuse(
                request_id,
                QueueFull(
                    f"{self._config.queue_limit} requests wait for {self._config.model_id}: try again "
                    "later or raise queue_limit.",
                    retry_after_s=5.0,
                ),
            )
            return False

    def answer(self, request_id: int, question: TokenizeSpec | DetokenizeSpec) -> None:
        """Tokenize or detokenize, and send the result."""

        def job() -> None:
            value: Any
            if isinstance(question, TokenizeSpec):
                value = list(
                    self._llama.tokens_of(
                        question.text,
                        add_special=question.add_special,
                        parse_special=question.parse_special,
                    )
                )
            else:
                check_ids(question.tokens, self._llama.n_vocab, "tokens")
                value = self._llama.detokenize(question.tokens)
            self._channel.send(protocol.Result(request_id, value))

        self.put(request_id, job)

    def _loop(self) -> None:
        while True:
            request_id, job = self._queue.get()
            try:
                with self.pulse.job():
                    job()
            except EdgeAgentError as exc:
                self._channel.refuse(request_id, exc)
            except Exception as exc:  # one bad request must not end the thread
                self._channel.refuse(
                    request_id, EngineFailed(f"Tokenizing failed: {type(exc).__name__}.")
                )


def check_ids(tokens: list[int], n_vocab: int, param: str) -> None:
    """Raises: InvalidParameter for an id that the vocabulary does not have."""
    for token in tokens:
        if not 0 <= token < n_vocab:
            raise InvalidParameter(
                f"`{param}` has token {token}, the vocabulary has ids 0 to {n_vocab - 1}: use ids of "
                "this model, or send text.",
                param=param,
            )
