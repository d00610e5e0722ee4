"""The daemon's side of one engine worker: start it, ask it, notice when it dies.

Everything here runs on the event loop's thread.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import signal
import subprocess
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import Any

from edgeagent import errors
from edgeagent.engine import protocol
from edgeagent.engine.spawn import Begun, begin
from edgeagent.types import (
    EngineConfig,
    EngineFacts,
    EngineHealth,
    GenerateSpec,
    PromptFacts,
    Question,
    TokenChunk,
)

logger = logging.getLogger(__name__)

# Chunks a client may leave unread before its request is cancelled: more than any answer's pieces.
MAX_UNREAD_CHUNKS = 1 << 16


class Generation:
    """The chunks of one request as they come. Iterate once; `cancel()` may be called at any time and
    twice, and must be called when the iteration is given up."""

    def __init__(self, client: EngineClient, request_id: int, n_answers: int) -> None:
        self._client = client
        self._request_id = request_id
        self._n_open = n_answers
        self._chunks: deque[TokenChunk] = deque()
        self._error: errors.EdgeAgentError | None = None
        self._waiter: asyncio.Future[None] | None = None
        self.facts: PromptFacts | None = None  # once its prompts are made

    @property
    def origin(self) -> tuple[EngineClient, int]:
        """Which engine, and by what number it knows the request."""
        return self._client, self._request_id

    async def take(self) -> list[TokenChunk]:
        """All chunks that have come since the last call, at least one; empty once every answer has
        ended.

        Raises: the error that ended the request: EngineDied, or what the worker refused it with.
        """
        while not self._chunks:
            if self._error is not None:
                raise self._error
            if self._n_open == 0:
                return []
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
        chunks = list(self._chunks)
        self._chunks.clear()
        return chunks

    async def __aiter__(self) -> AsyncIterator[TokenChunk]:
        while chunks := await self.take():
            for chunk in chunks:
                yield chunk

    def cancel(self) -> None:
        """Tell the worker to stop. What it had made comes all the same, each answer's last chunk too."""
        self._client.cancel(self._request_id)

    # --- called by the client

    def put(self, chunk: TokenChunk) -> bool:
        """Hand over a chunk. True when it was the request's last."""
        self._chunks.append(chunk)
        if chunk.finish is not None:
            self._n_open -= 1
        self._wake()
        return self._n_open == 0

    def fail(self, error: errors.EdgeAgentError) -> None:
        self._error = error
        self._wake()

    @property
    def is_overrun(self) -> bool:
        return len(self._chunks) > MAX_UNREAD_CHUNKS

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


class EngineClient(asyncio.Protocol):
    """A running worker. Made by `start`; `close()` may be called twice.

    `on_death` is called once with the exit status when the process ends unasked, except after it has
    said that its model cannot be loaded.
    """

    def __init__(
        self, config: EngineConfig, on_death: Callable[[EngineClient, int | None], None]
    ) -> None:
        self.config = config
        self.health = EngineHealth()
        self.last_beat_s = time.monotonic()
        self._on_death = on_death
        self._process: subprocess.Popen[bytes] | None = None
        self._transport: asyncio.Transport | None = None
        self._splitter = protocol.FrameSplitter()
        self._ids = itertools.count(1)
        self._generations: dict[int, Generation] = {}
        self._leaving: dict[
            int, Generation
        ] = {}  # cancelled; the worker has yet to say how far it came
        self._results: dict[int, asyncio.Future[Any]] = {}
        self._loaded: asyncio.Future[EngineFacts] = asyncio.get_running_loop().create_future()
        self._gone = asyncio.Event()
        self._n_threads = config.n_threads
        self._is_closing = False
        self._is_refused = False

    @classmethod
    async def start(
        cls,
        config: EngineConfig,
        *,
        timeout_s: float,
        on_death: Callable[[EngineClient, int | None], None] = lambda client, status: None,
        log_level: str = "info",
        begun: Begun | None = None,
    ) -> EngineClient:
        """Spawn a worker and wait until its model is loaded. One that was `begun` with this `config` is
        taken over.

        Raises: ModelUnusable when the model cannot be loaded; EngineDied when the worker ends while
        loading; EngineStarting when it takes longer than `timeout_s`.
        """
        client = cls(config, on_death)
        await client._listen(begun or begin(config, log_level))
        try:
            async with asyncio.timeout(timeout_s):
                await asyncio.shield(client._loaded)
        except TimeoutError:
            await client.close()
            raise errors.EngineStarting(
                f"Model {config.model_id} was not loaded after {timeout_s:g} s: try again, or raise "
                "load_timeout_s.",
                retry_after_s=10.0,
            ) from None
        except BaseException:
            await client.close()
            raise
        return client

    async def _listen(self, begun: Begun) -> None:
        self._process = begun.process
        loop = asyncio.get_running_loop()
        self._transport, _ = await loop.create_connection(lambda: self, sock=begun.sock)

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process is not None else None

    @property
    def is_alive(self) -> bool:
        return not self._gone.is_set() and not self._is_closing

    @property
    def was_loaded(self) -> bool:
        return self._loaded.done() and self._loaded.exception() is None

    @property
    def facts(self) -> EngineFacts:
        """What the worker said of itself when its model was loaded."""
        return self._loaded.result()

    @property
    def n_open(self) -> int:
        return len(self._generations) + len(self._results)

    def generate(self, spec: GenerateSpec) -> Generation:
        """Send a request. Raises: EngineDied when the worker has gone."""
        if not self.is_alive:
            raise self._death()
        request_id = next(self._ids)
        generation = Generation(self, request_id, spec.n_answers)
        self._generations[request_id] = generation
        self._send(protocol.Generate(request_id, spec))
        return generation

    async def ask(self, question: Question) -> Any:
        """What the worker answers in one piece: Vectors, Scores, list[int], str or int, by the question.

        Cancelling the task that waits here cancels the work. Raises: EngineDied, or what the worker
        refused the question with.
        """
        if not self.is_alive:
            raise self._death()
        request_id = next(self._ids)
        result = self._results[request_id] = asyncio.get_running_loop().create_future()
        self._send(protocol.Ask(request_id, question))
        try:
            return await result
        finally:
            if self._results.pop(request_id, None) is not None and self.is_alive:
                self._send(protocol.Cancel(request_id))

    def cancel(self, request_id: int) -> None:
        generation = self._generations.pop(request_id, None)
        if generation is not None and self.is_alive:
            self._leaving[request_id] = generation
            self._send(protocol.Cancel(request_id))

    def set_threads(self, n_threads: int) -> None:
        """Compute with this many threads from the next step on."""
        if n_threads != self._n_threads and self.is_alive:
            self._n_threads = n_threads
            self._send(protocol.SetThreads(n_threads))

    def forget_prefixes(self, scope: str | None) -> None:
        """Drop what is cached of ended requests of one scope, or of all."""
        if self.is_alive:
            self._send(protocol.ForgetPrefixes(scope))

    def kill(self, reason: str) -> None:
        """End the process at once; open requests get EngineDied."""
        if self._process is not None and self._process.poll() is None:
            logger.warning(
                "worker_killed model=%s pid=%s reason=%s", self.config.model_id, self.pid, reason
            )
            self._process.kill()

    async def close(self, timeout_s: float = 5.0) -> None:
        """End the worker and wait until all its memory has come back."""
        self._is_closing = True
        if self._transport is not None and not self._gone.is_set():
            if self._loaded.done():
                self._send(protocol.Shutdown())
            else:  # it reads nothing until its model is loaded
                self.kill("no longer wanted")
            try:
                async with asyncio.timeout(timeout_s):
                    await self._gone.wait()
            except TimeoutError:
                self.kill("does not end")
                await self._gone.wait()

    # --- asyncio.Protocol

    def data_received(self, data: bytes) -> None:
        try:
            for body in self._splitter.feed(data):
                self._receive(protocol.decode_to_daemon(body))
        except Exception:
            # A worker that speaks nonsense is a worker that has gone wrong.
            logger.exception("worker_frame_bad model=%s", self.config.model_id)
            self.kill("bad frame")

    def connection_lost(self, exc: Exception | None) -> None:
        asyncio.get_running_loop().create_task(self._bury(), name=f"bury-{self.pid}")

    async def _bury(self) -> None:
        """Reap the process, then tell everyone who waited for it."""
        assert self._process is not None
        deadline = time.monotonic() + 2.0
        while (status := self._process.poll()) is None:
            if time.monotonic() > deadline:
                self._process.kill()
            await asyncio.sleep(0.005)
        self._gone.set()
        if not self._is_closing and not self._is_refused:
            logger.warning(
                "worker_died model=%s pid=%s status=%s",
                self.config.model_id,
                self.pid,
                describe_exit(status),
            )
        if not self._loaded.done():
            self._loaded.set_exception(self._death())
            self._loaded.exception()  # retrieved: nobody may be waiting any more
        open_ones = [*self._generations.values(), *self._leaving.values()]
        self._generations, self._leaving = {}, {}
        for generation in open_ones:
            generation.fail(self._death())
        results, self._results = self._results, {}
        for result in results.values():
            _fail(result, self._death())
        if not self._is_closing and not self._is_refused:
            self._on_death(self, status)

    def _death(self) -> errors.EngineDied:
        status = self._process.poll() if self._process is not None else None
        told = (
            "the request was not finished, send it again; a new engine is being started."
            if self.was_loaded
            else "the model was still being loaded; the next request loads it again."
        )
        return errors.EngineDied(
            f"The engine of {self.config.model_id} ended ({describe_exit(status)}): {told}",
            retry_after_s=1.0,
        )

    def _send(self, message: protocol.ToWorker) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(protocol.encode(message))

    def _receive(self, message: protocol.ToDaemon) -> None:
        match message:
            case protocol.Step(chunks):
                for request_id, chunk in chunks:
                    self._deliver(request_id, chunk)
            case protocol.Prepared(request_id, facts):
                if (generation := self._generations.get(request_id)) is not None:
                    generation.facts = facts
            case protocol.Result(request_id, value):
                result = self._results.pop(request_id, None)
                if result is not None and not result.done():
                    result.set_result(value)
            case protocol.Heartbeat(health, silent_s):
                self.health = health
                self.last_beat_s = time.monotonic() - silent_s
            case protocol.Refused(request_id, code, text, param, retry_after_s):
                error = errors.by_code(code, text, param, retry_after_s)
                if (generation := self._taken(request_id)) is not None:
                    generation.fail(error)
                elif (result := self._results.pop(request_id, None)) is not None:
                    _fail(result, error)
            case protocol.Ready(facts):
                self.last_beat_s = time.monotonic()
                if not self._loaded.done():
                    self._loaded.set_result(facts)
            case protocol.LoadFailed(code, text):
                self._is_refused = True
                if not self._loaded.done():
                    self._loaded.set_exception(errors.by_code(code, text))
                    self._loaded.exception()

    def _deliver(self, request_id: int, chunk: TokenChunk) -> None:
        generation = self._generations.get(request_id) or self._leaving.get(request_id)
        if generation is None:
            return
        if generation.put(chunk):
            self._taken(request_id)
        elif generation.is_overrun and request_id in self._generations:
            self.cancel(request_id)
            generation.fail(
                errors.Unavailable("The answer was not read: read the stream as it comes.")
            )

    def _taken(self, request_id: int) -> Generation | None:
        """A request that has ended, no longer among those that are open."""
        leaving = self._leaving.pop(request_id, None)
        return self._generations.pop(request_id, None) or leaving


def _fail(result: asyncio.Future[Any], error: errors.EdgeAgentError) -> None:
    if not result.done():
        result.set_exception(error)


def describe_exit(status: int | None) -> str:
    """An exit status in words: "signal SIGKILL", "status 1"."""
    if status is None:
        return "no status"
    if status < 0:
        with contextlib.suppress(ValueError):
            return f"signal {signal.Signals(-status).name}"
    return f"status {status}"
