"""A kind of worker of our own, which counts: all that one has to bring, with nothing of an engine.

It counts up from 1 to `upto`, one number a step, or answers with the square of a number.
"""

from __future__ import annotations

import os
import sys
import time
from typing import Any

import msgspec

from edgeagent.errors import InvalidParameter, ModelUnusable
from edgeagent.types.worker_config import ComputeLimits, WorkerConfig, WorkerFacts, WorkerHealth
from edgeagent.worker import confinement, entry
from edgeagent.worker.channel import Channel
from edgeagent.worker.client import WorkerClient
from edgeagent.worker.loop import Loop
from edgeagent.worker.protocol import (
    Cancel,
    Heartbeat,
    Load,
    LoadFailure,
    Ready,
    Refusal,
    Result,
    SetLimits,
    Shutdown,
)
from edgeagent.worker.reply_stream import ReplyStream


class Count(msgspec.Struct, frozen=True, tag="count"):
    request_id: int
    upto: int


class Square(msgspec.Struct, frozen=True, tag="square"):
    request_id: int
    number: int


class Number(msgspec.Struct, frozen=True, tag="number"):
    request_id: int
    number: int
    n_threads: int
    is_last: bool


class CounterConfig(WorkerConfig, frozen=True, kw_only=True):
    failure: str = ""


ToWorker = Load[CounterConfig] | Count | Square | Cancel | SetLimits | Shutdown
ToDaemon = (
    Ready[WorkerFacts] | LoadFailure | Number | Result[int] | Refusal | Heartbeat[WorkerHealth]
)
decode_to_worker = msgspec.msgpack.Decoder(ToWorker).decode
decode_to_daemon = msgspec.msgpack.Decoder(ToDaemon).decode


# --- the daemon's side


class Numbers(ReplyStream[Number]):
    def is_last(self, reply: Number) -> bool:
        return reply.is_last


class CounterClient(WorkerClient):
    module = "tests.worker.counter"
    decode = staticmethod(decode_to_daemon)
    config: CounterConfig

    def count(self, upto: int) -> Numbers:
        numbers = Numbers(self._new_id(), self.cancel)
        self._open(numbers, Count(numbers.request_id, upto))
        return numbers

    async def square(self, number: int) -> int:
        request_id = self._new_id()
        value: int = await self._ask(request_id, Square(request_id, number))
        return value

    def _receive_own(self, message: Any) -> None:
        if isinstance(message, Number):
            self._deliver(message.request_id, message)


# --- the worker's side


class Counter:
    """Touches `_counts` on the main thread only."""

    def __init__(self, channel: Channel, config: CounterConfig, started_s: float) -> None:
        self._channel = channel
        self._loop = Loop(channel)
        self._counts: dict[int, tuple[int, int]] = {}
        self._n_threads = config.n_threads
        self._n_steps = 0
        self._facts = WorkerFacts(pid=os.getpid(), load_ms=1e3 * (time.monotonic() - started_s))

    def run(self) -> None:
        self._loop.run(self._facts, self, self._handle, confinement.rss_bytes)

    def _handle(self, message: Any) -> None:
        match message:
            case Count(request_id, upto):
                if upto < 1:
                    error = InvalidParameter(f"`upto` is {upto}: send at least 1.", param="upto")
                    self._channel.refuse(request_id, error)
                else:
                    self._loop.post(lambda: self._counts.update({request_id: (0, upto)}))
            case Square(request_id, number):
                self._loop.post(
                    lambda: (
                        self._channel.send(Result(request_id, number * number))
                        if number >= 0
                        else None
                    )
                )
            case Cancel(request_id):
                self._loop.post(lambda: self._cut(request_id))

    def _cut(self, request_id: int) -> None:
        if request_id in self._counts:
            n, _ = self._counts[request_id]
            self._counts[request_id] = (n, n + 1)

    @property
    def is_idle(self) -> bool:
        return not self._counts

    def step(self) -> bool:
        for request_id, (n, upto) in list(self._counts.items()):
            if n == 13:
                os._exit(13)
            self._counts[request_id] = (n + 1, upto)
            is_last = n + 1 >= upto
            self._channel.send(Number(request_id, n + 1, self._n_threads, is_last))
            if is_last:
                del self._counts[request_id]
        self._n_steps += 1
        return True

    def limit(self, limits: ComputeLimits) -> None:
        self._n_threads = limits.n_threads

    def health(self, rss_bytes: int) -> WorkerHealth:
        return WorkerHealth(n_steps=self._n_steps, n_running=len(self._counts), rss_bytes=rss_bytes)


def load(channel: Channel, config: CounterConfig, daemon_pid: int, started_s: float) -> Counter:
    confinement.enter(parent=daemon_pid)
    if config.failure:
        raise ModelUnusable(config.failure)
    return Counter(channel, config, started_s)


if __name__ == "__main__":
    entry.run(sys.argv, decode_to_worker, load)
