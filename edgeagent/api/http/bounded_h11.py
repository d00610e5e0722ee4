"""HTTP/1.1 as h11 reads and writes it, with a limit on the pieces of a body and a short way for streams."""

from __future__ import annotations

from typing import Any

import h11
from h11._writers import ChunkedWriter

# Pieces of one body: each costs the event loop 10 us, even if it is a single byte.
FREE_PIECES = 4096
MIN_PIECE_BYTES = 256


class BoundedH11(h11.Connection):
    """h11 with a limit on the number of pieces of a request body, and a short way for those of a stream."""

    def __init__(self, max_head_bytes: int) -> None:
        super().__init__(h11.SERVER, max_head_bytes)
        self._n_pieces = 0
        self._n_bytes = 0

    def send(self, event: Any) -> Any:
        """The bytes of an event. A piece of a chunked body leaves h11's state as it is: it is framed here,
        in a tenth of the time, since streams have one for each token."""
        if type(event) is h11.Data and event.data and self.is_sending_chunks:
            return chunk(event.data)
        return super().send(event)

    @property
    def is_sending_chunks(self) -> bool:
        """Whether a chunked body is being sent, so that a `chunk` of it may follow."""
        return self.our_state is h11.SEND_BODY and type(self._writer) is ChunkedWriter

    def next_event(self) -> Any:
        event = super().next_event()
        if isinstance(event, h11.Data):
            self._n_pieces += 1
            self._n_bytes += len(event.data)
            if self._n_pieces > FREE_PIECES + self._n_bytes // MIN_PIECE_BYTES:
                raise h11.RemoteProtocolError("The body comes in too many pieces")
        elif isinstance(event, h11.Request):
            self._n_pieces = self._n_bytes = 0
        return event


def chunk(data: bytes) -> bytes:
    """A piece of a chunked body as it is sent. An empty one would end the body."""
    return b"%x\r\n%b\r\n" % (len(data), data)
