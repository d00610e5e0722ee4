"""WebSockets: which paths have one, their protocol with limits that uvicorn does not have, and refusals.

The head of the upgrade is read by `connection.py` like any other, within its limits. Then:

a message           -> at most `ws_max_size` bytes and `MAX_FRAGMENTS` frames; the next is read once the
                       application has taken it
a client reads nothing -> nothing more is read of it, pings included; it is dropped after `write_timeout_s`
no pong             -> the connection is closed (uvicorn's keep-alive)

Compression is off: a message of a few bytes could fill the memory.
"""

from __future__ import annotations

import asyncio
from typing import Any, cast

from litestar.types import Scope, Send
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from edgeagent.api.http.errors import encoded
from edgeagent.api.http.request_context import KEY, RequestContext
from edgeagent.api.http.shutdown import Shutdown
from edgeagent.errors import EdgeAgentError

MAX_FRAGMENTS = 1024
TOO_BIG = 1009


class SocketProtocol(WebSocketsSansIOProtocol):
    """One WebSocket (see the module). Made by the protocol of its connection."""

    def __init__(
        self, *args: Any, write_timeout_s: float, shutdown: Shutdown, **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        self._write_timeout_s = write_timeout_s
        self._daemon_shutdown = shutdown
        self._write_clock: asyncio.TimerHandle | None = None
        self._n_fragments = 0

    async def run_asgi(self) -> None:
        self.scope["state"][KEY] = RequestContext(shutdown=self._daemon_shutdown)
        await super().run_asgi()

    def handle_cont(self, event: Any) -> None:
        """Bound the frames of a message: empty ones count for no bytes."""
        self._n_fragments += 1
        if self._n_fragments > MAX_FRAGMENTS:
            if not self.close_sent:
                self.conn.fail(TOO_BIG, "too many fragments")
                self.handle_parser_exception()
            return
        super().handle_cont(event)

    def handle_text(self, event: Any) -> None:
        self._n_fragments = 0
        super().handle_text(event)

    def handle_bytes(self, event: Any) -> None:
        self._n_fragments = 0
        super().handle_bytes(event)

    def pause_writing(self) -> None:
        super().pause_writing()
        self.transport.pause_reading()
        self._write_clock = self.loop.call_later(self._write_timeout_s, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._stop_write_clock()
        if not self.read_paused and not self.transport.is_closing():
            self.transport.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_write_clock()
        super().connection_lost(exc)

    def _stop_write_clock(self) -> None:
        if self._write_clock is not None:
            self._write_clock.cancel()
            self._write_clock = None


async def refuse_socket(
    error: EdgeAgentError, scope: Scope, send: Send, extra: list[tuple[bytes, bytes]] | None = None
) -> None:
    """Answer the request for a WebSocket with an error, as over HTTP."""
    status, headers, body = encoded(error, scope)
    start: Any = {
        "type": "websocket.http.response.start",
        "status": status,
        "headers": [*headers, *(extra or ())],
    }
    await send(start)
    await send(cast(Any, {"type": "websocket.http.response.body", "body": body}))
