"""Events of the Wyoming protocol on a stream, within bounds.

An event is a line of JSON with its type, then maybe more JSON (`data_length` bytes), then maybe audio
(`payload_length` bytes). Read here rather than by the `wyoming` library, which reads any length it is told.

Source: the protocol's description, https://github.com/OHF-Voice/wyoming.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any

import msgspec

from edgeagent.errors import BadRequest
from edgeagent.types.version import VERSION

MAX_LINE_BYTES = 8 << 10
MAX_DATA_BYTES = 64 << 10
MAX_PAYLOAD_BYTES = 1 << 20


@dataclass(frozen=True)
class WyomingEvent:
    type: str
    data: dict[str, Any] = field(default_factory=dict)
    payload: bytes = b""


async def read_event(reader: asyncio.StreamReader) -> WyomingEvent | None:
    """The next event; None at the end of the stream. `reader` has the limit `MAX_LINE_BYTES`.

    Raises: BadRequest for what is none, or is beyond the bounds; the stream is of no use then.
    """
    try:
        line = await reader.readuntil(b"\n")
    except asyncio.IncompleteReadError:
        return None
    except asyncio.LimitOverrunError as exc:
        raise BadRequest(
            f"The line of an event has more than {MAX_LINE_BYTES} bytes: send its data behind it."
        ) from exc
    head = _object(line)
    kind = head.get("type")
    if not isinstance(kind, str):
        raise BadRequest("An event has no type.")
    data = head.get("data") or {}
    if not isinstance(data, dict):
        raise BadRequest("The data of an event is no object.")
    n_data = _length(head, "data_length", MAX_DATA_BYTES)
    n_payload = _length(head, "payload_length", MAX_PAYLOAD_BYTES)
    try:
        if n_data:
            data = data | _object(await reader.readexactly(n_data))
        payload = await reader.readexactly(n_payload) if n_payload else b""
    except asyncio.IncompleteReadError:
        return None
    return WyomingEvent(kind, data, payload)


def encoded(kind: str, data: dict[str, Any] | None = None) -> bytes:
    """An event without payload, as it is sent."""
    head: dict[str, Any] = {"type": kind, "version": VERSION}
    body = msgspec.json.encode(data) if data else b""
    if body:
        head["data_length"] = len(body)
    return msgspec.json.encode(head) + b"\n" + body


def _object(text: bytes) -> dict[str, Any]:
    try:
        found = msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError) as exc:
        raise BadRequest(f"An event is no JSON ({exc}).") from exc
    if not isinstance(found, dict):
        raise BadRequest("An event is no JSON object.")
    return found


def _length(head: dict[str, Any], name: str, most: int) -> int:
    value = head.get(name) or 0
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= most:
        raise BadRequest(
            f"`{name}` is {str(value)[:40]}, it must be 0 to {most}: send less at once."
        )
    return value
