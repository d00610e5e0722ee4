"""What every kind of worker process does: frames in on one thread, steps on the main one.

receiver thread   reads frames, hands each to `handle`
main thread       drains the inbox, takes a step, says every half second that the process gets on
"""

from __future__ import annotations

import gc
import logging
import os
import queue
import socket
import threading
import time
from collections.abc import Callable, Iterable
from typing import Protocol

from edgeagent.engine import protocol
from edgeagent.engine.process.heartbeat import Pulse
from edgeagent.errors import EdgeAgentError
from edgeagent.types import EngineFacts, EngineHealth

logger = logging.getLogger(__name__)

HEARTBEAT_S = 0.5


class Channel:
    """The worker's end of the socketpair. Reading and writing may happen in different threads."""

    def __init__(self, fd: int) -> None:
        self._socket = socket.socket(fileno=fd)
        self._splitter = protocol.FrameSplitter()
        self._write_lock = threading.Lock()

    def send(self, message: protocol.ToDaemon) -> None:
        frame = protocol.encode(message)
        with self._write_lock:
            self._socket.sendall(frame)

    def receive(self) -> list[protocol.ToWorker]:
        """At least one message. Raises: EOFError when the daemon has gone."""
        while True:
            data = self._socket.recv(1 << 16)
            if not data:
                raise EOFError
            if bodies := self._splitter.feed(data):
                return [protocol.decode_to_worker(body) for body in bodies]

    def refuse(self, request_id: int, error: Exception) -> None:
        """End a request that has produced nothing."""
        if not isinstance(error, EdgeAgentError):
            error = EdgeAgentError(str(error))
        self.send(
            protocol.Refused(
                request_id, error.code, error.message, error.param, error.retry_after_s
            )
        )


def beat(health: EngineHealth, pulses: Iterable[Pulse]) -> protocol.Heartbeat:
    """A heartbeat as old as the last sign of whichever thread has been silent for longest."""
    return protocol.Heartbeat(health, max((pulse.silent_s() for pulse in pulses), default=0.0))


class Stepper(Protocol):
    """What computes: `Engine` or `Embedder`."""

    @property
    def is_idle(self) -> bool: ...

    def step(self) -> bool: ...

    def health(self, rss_bytes: int) -> EngineHealth: ...


class Loop:
    """The two threads of one worker. `post` may be called by any thread."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._inbox: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()

    def post(self, job: Callable[[], None]) -> None:
        """Run `job` on the main thread before its next step."""
        self._inbox.put(job)

    def wake(self) -> None:
        """Let an idle main thread take a step."""
        self._inbox.put(lambda: None)

    def run(
        self,
        facts: EngineFacts,
        stepper: Stepper,
        handle: Callable[[protocol.ToWorker], None],
        rss_bytes: Callable[[], int],
        pulses: Iterable[Pulse] = (),
    ) -> None:
        """Serve until the daemon goes or says so; the heartbeat says for how long one of the other threads
        has been silent. Raises whatever `stepper` could not handle."""
        threading.Thread(target=self._receive, args=(handle,), name="receiver", daemon=True).start()
        # What is loaded stays: keep the collector from walking it again and again.
        gc.collect()
        gc.freeze()
        self._channel.send(protocol.Ready(facts))
        last_beat = 0.0
        while True:
            self._drain(wait=stepper.is_idle)
            stepper.step()
            now = time.monotonic()
            if now - last_beat >= HEARTBEAT_S:
                last_beat = now
                self._channel.send(beat(stepper.health(rss_bytes()), pulses))

    def _drain(self, wait: bool) -> None:
        try:
            self._inbox.get(timeout=HEARTBEAT_S if wait else 0.0)()
            while True:
                self._inbox.get_nowait()()
        except queue.Empty:
            return

    def _receive(self, handle: Callable[[protocol.ToWorker], None]) -> None:
        try:
            while True:
                for message in self._channel.receive():
                    handle(message)
        except (EOFError, OSError):
            os._exit(0)
        except Exception:
            logger.exception("receiver_failed")
            os._exit(1)
