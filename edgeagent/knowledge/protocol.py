"""The messages between the daemon and the worker that parses documents.

A document is sent in parts and its chunks are fetched some at a time: neither is ever one large message,
which would hold up the event loop of the daemon.
"""

from __future__ import annotations

import msgspec

from edgeagent.knowledge.document import Chunk, ChunkSizes, ParserLimits
from edgeagent.types.worker_config import WorkerConfig, WorkerFacts, WorkerHealth
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


class ParserConfig(WorkerConfig, frozen=True, kw_only=True):
    """`memory_bytes`: the address space of the process."""

    limits: ParserLimits = ParserLimits()
    memory_bytes: int = 1 << 30


class AddPart(msgspec.Struct, frozen=True, tag="part"):
    """The next bytes of the document to be parsed. Answered by a `Result` without a value."""

    request_id: int
    data: bytes


class ParseDocument(msgspec.Struct, frozen=True, kw_only=True, tag="parse"):
    """Parse the document whose parts were sent. The `Result` is the number of its chunks."""

    request_id: int
    name: str
    sizes: ChunkSizes


class TakeChunks(msgspec.Struct, frozen=True, tag="take"):
    """Ask for the next chunks. The `Result` is a list, empty at the end."""

    request_id: int


ToWorker = Load[ParserConfig] | AddPart | ParseDocument | TakeChunks | Cancel | SetLimits | Shutdown
ToDaemon = (
    Ready[WorkerFacts]
    | LoadFailure
    | Result[list[Chunk] | int | None]
    | Refusal
    | Heartbeat[WorkerHealth]
)
# Decoders keep tables of their types: made at the first use, as few daemons have documents.


def decode_to_worker(body: bytes) -> ToWorker:
    return msgspec.msgpack.decode(body, type=ToWorker)  # type: ignore[no-any-return]


def decode_to_daemon(body: bytes) -> ToDaemon:
    return msgspec.msgpack.decode(body, type=ToDaemon)  # type: ignore[no-any-return]
