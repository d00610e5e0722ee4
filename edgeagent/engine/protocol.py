"""What the daemon and an engine worker say to each other.

Frames travel over a socketpair: four bytes of length (big-endian), then one MessagePack value, a
tagged struct of this file. The daemon sends `Load` first, then `Generate`, `Ask` and `Cancel`; the
worker answers `Ready` or `LoadFailed`, then `Prepared`, `Step`, `Result` and `Heartbeat` until it is
told to end or dies.
"""

from __future__ import annotations

import struct

import msgspec

from edgeagent.types import (
    Cells,
    EngineConfig,
    EngineFacts,
    EngineHealth,
    GenerateSpec,
    PromptFacts,
    Question,
    Scores,
    TemplateFacts,
    TokenChunk,
    Vectors,
)

LENGTH = struct.Struct(">I")
MAX_FRAME_BYTES = 256 << 20


class Load(msgspec.Struct, frozen=True, tag="load"):
    config: EngineConfig


class Generate(msgspec.Struct, frozen=True, tag="generate"):
    request_id: int
    spec: GenerateSpec


class Ask(msgspec.Struct, frozen=True, tag="ask"):
    """A question that one `Result` answers, or one `Refused`."""

    request_id: int
    question: Question


class Cancel(msgspec.Struct, frozen=True, tag="cancel"):
    request_id: int


class SetThreads(msgspec.Struct, frozen=True, tag="set_threads"):
    n_threads: int


class ForgetPrefixes(msgspec.Struct, frozen=True, tag="forget_prefixes"):
    """Drop what is cached of ended requests of one scope, or of all (None)."""

    scope: str | None = None


class Shutdown(msgspec.Struct, frozen=True, tag="shutdown"):
    pass


class Ready(msgspec.Struct, frozen=True, tag="ready"):
    facts: EngineFacts


class LoadFailed(msgspec.Struct, frozen=True, tag="load_failed"):
    code: str
    message: str


class Prepared(msgspec.Struct, frozen=True, tag="prepared"):
    """A request whose prompts are made, and once more when the first of them has a place."""

    request_id: int
    facts: PromptFacts


class Step(msgspec.Struct, frozen=True, tag="step"):
    """The new pieces of every sequence after one step: (request id, chunk) pairs."""

    chunks: list[tuple[int, TokenChunk]]


class Result(msgspec.Struct, frozen=True, tag="result"):
    """Vectors, scores, cells, the tokens of a text, the text of tokens, a count of them, or what a template
    can."""

    request_id: int
    value: Vectors | Scores | Cells | TemplateFacts | list[int] | str | int


class Refused(msgspec.Struct, frozen=True, tag="refused"):
    """A request that ended before its first token: an error of `errors.py` by its code."""

    request_id: int
    code: str
    message: str
    param: str | None = None
    retry_after_s: float | None = None


class Heartbeat(msgspec.Struct, frozen=True, tag="heartbeat"):
    """`silent_s`: for how long one of the worker's other threads has worked on one thing without a sign."""

    health: EngineHealth
    silent_s: float = 0.0


ToWorker = Load | Generate | Ask | Cancel | SetThreads | ForgetPrefixes | Shutdown
ToDaemon = Ready | LoadFailed | Prepared | Step | Result | Refused | Heartbeat

_encoder = msgspec.msgpack.Encoder()
decode_to_worker = msgspec.msgpack.Decoder(ToWorker).decode
decode_to_daemon = msgspec.msgpack.Decoder(ToDaemon).decode


def encode(message: ToWorker | ToDaemon) -> bytes:
    """A whole frame, length included."""
    body = _encoder.encode(message)
    return LENGTH.pack(len(body)) + body


class FrameSplitter:
    """Cuts a byte stream into frame bodies. Raises ValueError for a frame over the bound."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[bytes]:
        self._buffer += data
        bodies = []
        start = 0
        while len(self._buffer) - start >= LENGTH.size:
            (length,) = LENGTH.unpack_from(self._buffer, start)
            if length > MAX_FRAME_BYTES:
                raise ValueError(f"frame of {length} bytes, the bound is {MAX_FRAME_BYTES}")
            end = start + LENGTH.size + length
            if len(self._buffer) < end:
                break
            bodies.append(bytes(self._buffer[start + LENGTH.size : end]))
            start = end
        del self._buffer[:start]
        return bodies
