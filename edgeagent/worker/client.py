"""The daemon's side of one worker, whatever it computes: start, requests, heartbeat, end.

A kind of worker subclasses `WorkerClient`, names the module that the process runs and its messages, and
adds a method for each request that it takes. The pool uses nothing but this class.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import signal
import socket
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any, ClassVar, Self, cast

import msgspec

from edgeagent import errors
from edgeagent.types.worker_config import ComputeLimits, WorkerConfig, WorkerFacts, WorkerHealth
from edgeagent.worker import frames, protocol
from edgeagent.worker.process import WaitingProcess, WorkerProcess, launch
from edgeagent.worker.reply_stream import ReplyStream

logger = logging.getLogger(__name__)

# Read at once. asyncio's default of 256 KiB is a mapping of its own, made and dropped for each token.
READ_BYTES = 64 << 10

OnDeath = Callable[["WorkerClient", int | None], None]


class WorkerClient(asyncio.Protocol, ABC):
    """A running worker. Made by `start`. Event loop's thread only; `close()` may be called twice.

    `on_death` is called once with the exit status when the process ends without being told to, except
    after it has reported that its model cannot be loaded. `facts` is there once `start` has returned;
    `limits` are those that the worker was told last.

    A subclass sets `module` and `decode`, annotates `config`, `facts` and `health` with its own structs,
    opens requests by `_open` (a stream of replies) or `_ask` (one result), and passes the replies in its
    own messages to `_deliver` in `_receive_own`.
    """

    # The module of the worker process: `python -m MODULE FD DAEMON_PID`.
    module: ClassVar[str]
    # Whether its threads wait for each other in another way beside other programs, and may wait long alone.
    switches_waits: ClassVar[bool] = False

    config: WorkerConfig
    facts: WorkerFacts
    health: WorkerHealth = WorkerHealth()

    def __init__(
        self, config: WorkerConfig, on_death: OnDeath = lambda client, status: None
    ) -> None:
        self.config = config
        self.last_beat_s = time.monotonic()
        self._on_death = on_death
        self._process: WorkerProcess | None = None
        self._transport: asyncio.Transport | None = None
        self._splitter = frames.FrameSplitter()
        self._ids = itertools.count(1)
        self._streams: dict[int, ReplyStream[Any]] = {}
        # Cancelled streams whose last reply has not arrived yet.
        self._cancelled: dict[int, ReplyStream[Any]] = {}
        self._results: dict[int, asyncio.Future[Any]] = {}
        # Messages that wait until the worker has read those before.
        self._later: deque[Iterator[msgspec.Struct]] = deque()
        self._is_full = False
        self._ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._gone = asyncio.Event()
        self.limits = ComputeLimits(n_threads=config.n_threads)
        self._is_closing = False
        self._has_refused = False

    # --- what a subclass defines

    @staticmethod
    @abstractmethod
    def decode(body: bytes, /) -> Any:
        """A message from the worker: one of `worker.protocol`, or one of this kind."""

    @abstractmethod
    def _receive_own(self, message: Any) -> None:
        """Handle a message that `worker.protocol` does not define."""

    def forget_prefixes(self, scope: str | None) -> None:
        """Drop what is cached of ended requests of one scope, or of all. Most kinds cache nothing."""

    # --- life cycle

    @classmethod
    def launch(
        cls, config: WorkerConfig, log_level: str, *, is_silent: bool = False
    ) -> WorkerProcess:
        """Start the process of a worker without waiting for it, for `start` to take over. Any thread."""
        return launch(
            cls.module, config, log_level, is_silent=is_silent, waits_long=cls.switches_waits
        )

    @classmethod
    def is_run_by(cls, process: WaitingProcess) -> bool:
        """Whether a process was started as `launch` does it, and may be told what to load."""
        return (process.module, process.waits_long) == (cls.module, cls.switches_waits)

    @classmethod
    async def start(
        cls,
        config: WorkerConfig,
        *,
        timeout_s: float,
        on_death: OnDeath = lambda client, status: None,
        log_level: str = "info",
        process: WorkerProcess | None = None,
    ) -> Self:
        """Start a worker and wait until its model is loaded. Takes over `process` if there is one; it must
        have been launched with the same `config`.

        Raises: ModelUnusable when the model cannot be loaded; EngineDied when the worker ends while
        loading; EngineStarting when it takes longer than `timeout_s`.
        """
        client = cls(config, on_death)
        client._process = process or cls.launch(config, log_level)
        try:
            await client._listen(client._process.sock)
            async with asyncio.timeout(timeout_s):
                await asyncio.shield(client._ready)
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

    async def _listen(self, sock: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        self._transport, _ = await loop.create_connection(lambda: self, sock=sock)
        cast(Any, self._transport).max_size = READ_BYTES

    @property
    def pid(self) -> int | None:
        return self._process.popen.pid if self._process is not None else None

    @property
    def is_alive(self) -> bool:
        return not self._gone.is_set() and not self._is_closing

    @property
    def was_loaded(self) -> bool:
        """Whether the model was loaded, be the worker alive or dead."""
        return self._ready.done() and self._ready.exception() is None

    @property
    def n_open(self) -> int:
        """Requests that have not ended and were not cancelled."""
        return len(self._streams) + len(self._results)

    def set_limits(self, limits: ComputeLimits) -> None:
        """Compute within these limits from the next step on."""
        if limits != self.limits and self.is_alive:
            self.limits = limits
            self._send(protocol.SetLimits(limits))

    def kill(self, reason: str) -> None:
        """End the process at once; open requests get EngineDied."""
        if self._process is not None and self._status() is None:
            logger.warning(
                "worker_killed model=%s pid=%s reason=%s", self.config.model_id, self.pid, reason
            )
            self._process.popen.kill()

    async def close(self, timeout_s: float = 5.0) -> None:
        """End the worker and wait until all its memory has been returned."""
        self._is_closing = True
        if self._transport is None and self._process is not None:  # nobody listens to it yet
            await asyncio.to_thread(self._process.close)
        elif self._transport is not None and not self._gone.is_set():
            if self._ready.done():
                self._send(protocol.Shutdown())
            else:  # it reads no messages before its model is loaded
                self.kill("no longer wanted")
            try:
                async with asyncio.timeout(timeout_s):
                    await self._gone.wait()
            except TimeoutError:
                self.kill("does not end")
                await self._gone.wait()

    # --- requests

    def _new_id(self) -> int:
        """A number for a new request. Raises: EngineDied when the worker has ended."""
        if not self.is_alive:
            raise self._death()
        return next(self._ids)

    def _open(self, stream: ReplyStream[Any], message: msgspec.Struct) -> None:
        """Send a request whose replies go to `stream`."""
        self._streams[stream.request_id] = stream
        self._send(message)

    async def _ask(self, request_id: int, message: msgspec.Struct) -> Any:
        """Send a request that one `Result` answers, and wait for its value.

        Cancelling the task that waits here cancels the work. Raises: EngineDied, or the worker's refusal.
        """
        result = self._results[request_id] = asyncio.get_running_loop().create_future()
        self._send(message)
        try:
            return await result
        finally:
            if self._results.pop(request_id, None) is not None and self.is_alive:
                self._send(protocol.Cancel(request_id))

    def cancel(self, request_id: int) -> None:
        """Cancel a request with a stream of replies. Does nothing for one that has ended."""
        stream = self._streams.pop(request_id, None)
        if stream is not None and self.is_alive:
            self._cancelled[request_id] = stream
            self._send(protocol.Cancel(request_id))

    def _deliver(self, request_id: int, reply: Any) -> None:
        """Pass a reply to the stream of its request."""
        stream = self._streams.get(request_id) or self._cancelled.get(request_id)
        if stream is None:
            return
        if stream.put(reply):
            self._remove(request_id)
        elif stream.is_overrun and request_id in self._streams:
            self.cancel(request_id)
            stream.fail(errors.Unavailable("The answer was not read: read the stream as it comes."))

    def _remove(self, request_id: int) -> ReplyStream[Any] | None:
        """The stream of a request that has ended, which is no longer open or cancelled then."""
        cancelled = self._cancelled.pop(request_id, None)
        return self._streams.pop(request_id, None) or cancelled

    # --- asyncio.Protocol

    def pause_writing(self) -> None:
        self._is_full = True

    def resume_writing(self) -> None:
        self._is_full = False
        self._send_later()

    def data_received(self, data: bytes) -> None:
        try:
            for body in self._splitter.feed(data):
                self._receive(self.decode(body))
        except Exception:
            # A worker that sends what it must not has gone wrong.
            logger.exception("worker_frame_bad model=%s", self.config.model_id)
            self.kill("bad frame")

    def _receive(self, message: Any) -> None:
        match message:
            case protocol.Heartbeat(health, silent_s):
                self.health = health
                self.last_beat_s = time.monotonic() - silent_s
            case protocol.Result(request_id, value):
                result = self._results.pop(request_id, None)
                if result is not None and not result.done():
                    result.set_result(value)
            case protocol.Refusal(request_id, code, text, param, retry_after_s):
                error = errors.by_code(code, text, param, retry_after_s)
                if (stream := self._remove(request_id)) is not None:
                    stream.fail(error)
                elif (result := self._results.pop(request_id, None)) is not None:
                    _fail(result, error)
            case protocol.Ready(facts):
                self.last_beat_s = time.monotonic()
                self.facts = facts
                if not self._ready.done():
                    self._ready.set_result(None)
            case protocol.LoadFailure(code, text):
                self._has_refused = True
                self._fail_start(errors.by_code(code, text))
            case _:
                self._receive_own(message)

    def connection_lost(self, exc: Exception | None) -> None:
        asyncio.get_running_loop().create_task(self._reap(), name=f"reap-{self.pid}")

    # --- death

    async def _reap(self) -> None:
        """Wait for the end of the process, then fail every request that is open."""
        assert self._process is not None
        deadline = time.monotonic() + 2.0
        while (status := self._status()) is None:
            if time.monotonic() > deadline:
                self._process.popen.kill()
            await asyncio.sleep(0.005)
        self._gone.set()
        is_unexpected = not self._is_closing and not self._has_refused
        if is_unexpected:
            logger.warning(
                "worker_died model=%s pid=%s status=%s",
                self.config.model_id,
                self.pid,
                describe_exit(status),
            )
        self._fail_start(self._death())
        streams = [*self._streams.values(), *self._cancelled.values()]
        self._streams, self._cancelled = {}, {}
        for stream in streams:
            stream.fail(self._death())
        results, self._results = self._results, {}
        self._later.clear()
        for result in results.values():
            _fail(result, self._death())
        if is_unexpected:
            self._on_death(self, status)

    def _fail_start(self, error: errors.EdgeAgentError) -> None:
        if not self._ready.done():
            self._ready.set_exception(error)
            self._ready.exception()  # retrieved: maybe nobody waits any more

    def _status(self) -> int | None:
        return self._process.popen.poll() if self._process is not None else None

    def _death(self) -> errors.EngineDied:
        way_out = (
            "the request was not finished, send it again; a new engine is being started."
            if self.was_loaded
            else "the model was still being loaded; the next request loads it again."
        )
        return errors.EngineDied(
            f"The engine of {self.config.model_id} ended ({describe_exit(self._status())}): {way_out}",
            retry_after_s=1.0,
        )

    def _send(self, message: msgspec.Struct) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(frames.encode(message))

    def _send_in_turn(self, messages: Iterable[msgspec.Struct]) -> None:
        """Send messages one after another as the worker reads them, so that no copy of all of them waits.
        Others go between them."""
        self._later.append(iter(messages))
        self._send_later()

    def _send_later(self) -> None:
        while self._later and not self._is_full and self.is_alive:
            if (message := next(self._later[0], None)) is not None:
                self._send(message)
            else:
                self._later.popleft()


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
