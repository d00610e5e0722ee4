"""The worker that parses documents, one at a time on its main thread.

It is confined like every worker: no sockets, no files but its libraries, bounded memory. A document that
takes too long ends with the process (knowledge/parser.py).
"""

from __future__ import annotations

import os
import sys
import time
from collections import deque
from typing import Any

from edgeagent.errors import EdgeAgentError, InvalidParameter
from edgeagent.knowledge.document import Chunk
from edgeagent.knowledge.parsing import parse
from edgeagent.knowledge.protocol import (
    AddPart,
    ParseDocument,
    ParserConfig,
    TakeChunks,
    decode_to_worker,
)
from edgeagent.types.worker_config import ComputeLimits, WorkerFacts, WorkerHealth
from edgeagent.worker import confinement, entry
from edgeagent.worker.channel import Channel
from edgeagent.worker.loop import Loop
from edgeagent.worker.protocol import Result

CHUNKS_AT_ONCE = 100


class ParserWorker:
    """Main thread only, except `_handle`."""

    def __init__(self, channel: Channel, config: ParserConfig, started_s: float) -> None:
        self._channel = channel
        self._config = config
        self._loop = Loop(channel)
        self._waiting: deque[AddPart | ParseDocument | TakeChunks] = deque()
        self._data = bytearray()
        self._chunks: deque[Chunk] = deque()
        self._n_done = 0
        self._facts = WorkerFacts(pid=os.getpid(), load_ms=1e3 * (time.monotonic() - started_s))

    def run(self) -> None:
        self._loop.run(self._facts, self, self._handle, confinement.rss_bytes)

    def _handle(self, message: Any) -> None:
        if isinstance(message, AddPart | ParseDocument | TakeChunks):
            self._loop.post(lambda: self._waiting.append(message))

    @property
    def is_idle(self) -> bool:
        return not self._waiting

    def step(self) -> bool:
        if not self._waiting:
            return False
        asked = self._waiting.popleft()
        match asked:
            case AddPart(request_id, data):
                self._data += data
                self._channel.send(Result(request_id, None))
            case TakeChunks(request_id):
                n = min(CHUNKS_AT_ONCE, len(self._chunks))
                self._channel.send(Result(request_id, [self._chunks.popleft() for _ in range(n)]))
            case ParseDocument():
                self._parse(asked)
        self._n_done += 1
        return True

    def _parse(self, asked: ParseDocument) -> None:
        data, self._data = bytes(self._data), bytearray()
        self._chunks.clear()
        try:
            self._chunks += parse(asked.name, data, asked.sizes, self._config.limits)
            self._channel.send(Result(asked.request_id, len(self._chunks)))
        except EdgeAgentError as exc:
            self._channel.refuse(asked.request_id, exc)
        except MemoryError:
            self._channel.refuse(asked.request_id, _bad("needs more memory than it may have"))
        except RecursionError:
            self._channel.refuse(asked.request_id, _bad("is nested too deeply"))
        except Exception as exc:  # a bad document must not end the process
            self._channel.refuse(asked.request_id, _bad(f"is not sound ({type(exc).__name__})"))

    def limit(self, limits: ComputeLimits) -> None:
        """It has one thread at any time."""

    def health(self, rss_bytes: int) -> WorkerHealth:
        return WorkerHealth(
            n_steps=self._n_done, n_waiting=len(self._waiting), rss_bytes=rss_bytes, n_threads=1
        )


def _bad(what: str) -> InvalidParameter:
    return InvalidParameter(
        f"The document {what}: save it again, or split it into several files.", param="file"
    )


def load(channel: Channel, config: ParserConfig, daemon_pid: int, started_s: float) -> ParserWorker:
    confinement.enter(parent=daemon_pid, address_space_bytes=config.memory_bytes)
    return ParserWorker(channel, config, started_s)


if __name__ == "__main__":
    entry.run(sys.argv, decode_to_worker, load)
