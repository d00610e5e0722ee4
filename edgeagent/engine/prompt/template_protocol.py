"""The messages between a worker and its template process: MessagePack after a length.

Separate from `template_process`, because a worker does not need Jinja2, which costs 4 MB and 35 ms.
"""

from __future__ import annotations

import struct
from typing import Any, BinaryIO

import msgspec

LENGTH = struct.Struct(">I")


class RenderRequest(msgspec.Struct, frozen=True):
    """`template` None means the one compiled last. `variables` hold messages, tools, bos_token, ..."""

    template: str | None
    variables: dict[str, Any]


class RenderAnswer(msgspec.Struct, frozen=True):
    """The prompt, or why the template refused or failed. An empty answer reports that the process has
    started, and for each request that it was accepted and the template runs."""

    text: str | None = None
    error: str | None = None


def framed(message: RenderRequest | RenderAnswer) -> bytes:
    body = msgspec.msgpack.encode(message)
    return LENGTH.pack(len(body)) + body


def write_frame(stream: BinaryIO, message: RenderRequest | RenderAnswer) -> None:
    stream.write(framed(message))
    stream.flush()
