"""Frames on the socketpair between the daemon and a worker.

A frame is four bytes of length (big-endian), then one MessagePack value: a tagged struct of `protocol.py`
or of the protocol of one kind of worker.
"""

from __future__ import annotations

import struct

import msgspec

LENGTH = struct.Struct(">I")
MAX_FRAME_BYTES = 256 << 20

_encoder = msgspec.msgpack.Encoder()


def encode(message: msgspec.Struct) -> bytes:
    """A whole frame, length included."""
    body = _encoder.encode(message)
    return LENGTH.pack(len(body)) + body


class FrameSplitter:
    """Cuts a byte stream into frame bodies. Raises ValueError for a frame over the bound."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[bytes]:
        """The bodies of all frames that are complete now."""
        if not self._buffer and len(data) >= LENGTH.size:
            (length,) = LENGTH.unpack_from(data)
            if len(data) == LENGTH.size + length:  # one frame, as for most tokens
                return [data[LENGTH.size :]]
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
