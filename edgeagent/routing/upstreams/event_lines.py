"""The data of server-sent events, from bytes that nobody has promised anything about. Pure."""

from __future__ import annotations

from edgeagent.routing.upstreams.faults import Fault

# Bounds for one event, which is decoded on the event loop, and for a whole answer: 100,000 tokens with their
# log-probabilities have 30 MB.
MAX_EVENT_BYTES = 256 << 10
MAX_ANSWER_BYTES = 64 << 20


class EventLines:
    """Splits a stream into the data of its events. Comments and other fields are skipped."""

    def __init__(self) -> None:
        self._rest = bytearray()
        self._n_bytes = 0

    def feed(self, data: bytes) -> list[bytes]:
        """The data of the events whose lines have ended. Raises: Fault for what has no end."""
        self._n_bytes += len(data)
        if self._n_bytes > MAX_ANSWER_BYTES:
            raise Fault("nonsense", f"its answer has more than {MAX_ANSWER_BYTES >> 20} MiB")
        # Single bytes cost no more than large pieces: only the new ones are searched.
        self._rest += data
        found: list[bytes] = []
        if b"\n" in data:
            *lines, rest = bytes(self._rest).split(b"\n")
            self._rest = bytearray(rest)
            found = [line[5:].strip() for line in lines if line.startswith(b"data:")]
        if len(self._rest) > MAX_EVENT_BYTES or any(len(one) > MAX_EVENT_BYTES for one in found):
            size = f"{MAX_EVENT_BYTES >> 10} KiB"
            raise Fault("nonsense", f"an event of its answer has more than {size}")
        return found
