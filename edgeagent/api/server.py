"""The HTTP server: uvicorn on h11, with bounds that uvicorn leaves to others.

Chosen by measurement (2 cores, EPYC Zen 5, 2026-11; uvicorn 0.54 with h11 and httptools, hypercorn
0.18, granian 2.8): with httptools 100 MB of headers cost 98 MB of memory, with h11, hypercorn and
granian none; granian cannot take an inherited socket and its two processes cost 54 MB where uvicorn
costs 27 and hypercorn 67; all see a client leave within 3 ms; 2,000 stream chunks take 26 ms with
h11, 35 with hypercorn, 38 with granian. What h11 lacks is a clock on the request head: it is here.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from typing import Any

import h11
import uvicorn
from litestar.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from edgeagent.api.errors import encoded
from edgeagent.api.guard import request_id
from edgeagent.errors import BadRequest
from edgeagent.settings import Settings

logger = logging.getLogger(__name__)


class GuardedProtocol(H11Protocol):
    """One connection. A request head must arrive whole within `header_timeout_s`; when all places are
    taken, the connection that has waited longest without a request gives up its own; one whose client
    does not read is dropped, because closing it would wait for the client."""

    header_timeout_s = 15.0
    max_connections = 512
    write_timeout_s = 30.0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._waiting_since_s = self.loop.time()
        self._head_clock = self.loop.call_later(self.header_timeout_s, self._head_is_late)
        self._write_clock: asyncio.TimerHandle | None = None
        if len(self.connections) > self.max_connections:
            self._make_place()

    def data_received(self, data: bytes) -> None:
        before = self.cycle
        super().data_received(data)
        if self.cycle is not before:
            self._head_clock.cancel()

    def on_response_complete(self) -> None:
        # Between requests uvicorn's keep-alive clock runs until the first byte of the next head.
        super().on_response_complete()
        if not self.transport.is_closing():
            self._waiting_since_s = self.loop.time()
            self._head_clock.cancel()
            self._head_clock = self.loop.call_later(
                self.timeout_keep_alive + self.header_timeout_s, self._head_is_late
            )

    def pause_writing(self) -> None:
        super().pause_writing()
        # A little later than the stream's own clock, which has the better word for the log.
        self._write_clock = self.loop.call_later(self.write_timeout_s + 1, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._stop_write_clock()

    def _stop_write_clock(self) -> None:
        if self._write_clock is not None:
            self._write_clock.cancel()
            self._write_clock = None

    def connection_lost(self, exc: Exception | None) -> None:
        self._head_clock.cancel()
        self._stop_write_clock()
        super().connection_lost(exc)

    @property
    def is_waiting(self) -> bool:
        """No request is being answered on this connection."""
        return self.cycle is None or self.cycle.response_complete

    def _head_is_late(self) -> None:
        if self.is_waiting and not self.transport.is_closing():
            self.transport.abort()

    def _make_place(self) -> None:
        waiting = [c for c in self.connections if isinstance(c, GuardedProtocol) and c.is_waiting]
        min(waiting, key=lambda c: c._waiting_since_s, default=self).transport.abort()

    def send_400_response(self, msg: str) -> None:
        """What is no HTTP is answered in the same shape as everything else."""
        status, headers, body = encoded(
            BadRequest(f"{msg.rstrip('.')}: send HTTP/1.1 within the bounds.")
        )
        headers += [(b"connection", b"close"), request_id()]
        try:
            output = self.conn.send(h11.Response(status_code=status, headers=headers))
            output += self.conn.send(h11.Data(data=body)) + self.conn.send(h11.EndOfMessage())
            self.transport.write(output)
        except h11.LocalProtocolError:
            logger.debug("bad_request_unanswerable")
        self.transport.close()


def send_at_once(sock: socket.socket) -> None:
    """Let connections that this socket accepts send small pieces without waiting for a confirmation.

    An answer is written head first, then body: without this the body waits for the client's delayed
    confirmation of the head, 40 ms on Linux. asyncio sets it only for sockets that name their protocol.
    """
    if sock.family in (socket.AF_INET, socket.AF_INET6):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def server(app: ASGIApp, settings: Settings) -> uvicorn.Server:
    """A server for sockets that are listened on already, by us or by systemd."""
    protocol: Any = type(
        "Protocol",
        (GuardedProtocol,),
        {
            "header_timeout_s": settings.header_timeout_s,
            "max_connections": settings.max_connections,
            "write_timeout_s": settings.write_timeout_s,
        },
    )
    config = uvicorn.Config(
        app,
        http=protocol,
        ws="none",
        lifespan="on",
        loop="asyncio",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        h11_max_incomplete_event_size=settings.max_header_bytes,
        timeout_keep_alive=30,
        timeout_graceful_shutdown=5,
    )
    return uvicorn.Server(config)
