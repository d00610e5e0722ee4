"""The loop of every worker process: messages arrive on one thread, the main thread computes in steps.

receiver thread   reads messages and passes each to `handle`
main thread       does the jobs that other threads posted, takes a step, sends a heartbeat twice a second
                  (every two seconds while it is idle: each wakes two processes)
"""

from __future__ import annotations

import gc
import logging
import os
import queue
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any, Protocol

from edgeagent.types.worker_config import ComputeLimits, WorkerFacts, WorkerHealth
from edgeagent.worker import protocol
from edgeagent.worker.channel import Channel
from edgeagent.worker.heartbeat import HEARTBEAT_S, IDLE_HEARTBEAT_S, Pulse, heartbeat

logger = logging.getLogger(__name__)


class Stepper(Protocol):
    """What computes, step by step. Main thread only."""

    @property
    def is_idle(self) -> bool:
        """Whether the next step has nothing to do, so that the loop may wait for a message."""

    def step(self) -> bool:
        """Compute for a short time. False when there was nothing to do."""

    def limit(self, limits: ComputeLimits) -> None:
        """Compute within these limits from the next step on."""

    def health(self, rss_bytes: int) -> WorkerHealth: ...


class Loop:
    """The two threads of one worker. `post` and `wake` may be called by any thread."""

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
        facts: WorkerFacts,
        stepper: Stepper,
        handle: Callable[[Any], None],
        rss_bytes: Callable[[], int],
        pulses: Iterable[Pulse] = (),
        pause_s: Callable[[], float] = lambda: 0.0,
    ) -> None:
        """Report `facts` and serve until the daemon goes or ends this process.

        `handle` gets requests and `Cancel` on the receiver thread. The heartbeat reports the longest
        silence of the other threads, by their `pulses`. `pause_s` says how long the next step may wait for
        another job. Raises whatever `stepper` raises.
        """
        threading.Thread(
            target=self._receive, args=(stepper, handle), name="receiver", daemon=True
        ).start()
        # What is loaded stays: keep the collector from walking it again and again.
        gc.collect()
        gc.freeze()
        self._channel.send(protocol.Ready(facts))
        last_beat_s, interval_s = 0.0, HEARTBEAT_S
        while True:
            self._drain(interval_s if stepper.is_idle else 0.0)
            while wait_s := pause_s():
                self._drain(wait_s)
            stepper.step()
            now = time.monotonic()
            if not stepper.is_idle:
                interval_s = HEARTBEAT_S
            if now - last_beat_s >= interval_s:
                last_beat_s = now
                self._channel.send(heartbeat(stepper.health(rss_bytes()), pulses))
                # The first one after work comes soon, since it tells that the work is done.
                interval_s = IDLE_HEARTBEAT_S if stepper.is_idle else HEARTBEAT_S

    def _drain(self, wait_s: float) -> None:
        """Do what was posted; wait for it for `wait_s`."""
        if not wait_s and self._inbox.empty():  # as before nearly every step
            return
        try:
            self._inbox.get(timeout=wait_s)()
            while True:
                self._inbox.get_nowait()()
        except queue.Empty:
            return

    def _receive(self, stepper: Stepper, handle: Callable[[Any], None]) -> None:
        try:
            while True:
                for message in self._channel.receive():
                    match message:
                        case protocol.SetLimits(limits):
                            self.post(lambda new=limits: stepper.limit(new))  # type: ignore[misc]
                        case protocol.Shutdown():
                            os._exit(0)
                        case _:
                            handle(message)
        except (EOFError, OSError):
            os._exit(0)
        except Exception:
            logger.exception("receiver_failed")
            os._exit(1)
