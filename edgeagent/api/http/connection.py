"""One client connection: uvicorn's protocol for h11, with limits that uvicorn does not have.

a request head must arrive completely within `header_timeout_s`
all places are taken    -> the least valuable connection is closed (connection_limits.py)
a client reads nothing  -> it is dropped after `write_timeout_s`; unread answers have `MAX_UNREAD_BYTES`
large bodies arrive        -> all together at a limited rate (body_rate.py)
a body arrives in crumbs -> they are handed on together
an answer is sent before the whole body has arrived
                        -> the connection lingers: further bytes are discarded for a moment, so that the
                           client can read the answer instead of a reset
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any, cast

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from edgeagent.api.http.body_rate import FREE_BYTES, BodyRate
from edgeagent.api.http.bounded_h11 import BoundedH11, chunk
from edgeagent.api.http.connection_limits import ConnectionRank, ConnectionSeat, Places
from edgeagent.api.http.errors import encoded
from edgeagent.api.http.host_and_origin import request_id
from edgeagent.api.http.key_limits import peer_network
from edgeagent.api.http.path_scopes import SOCKET_PATHS, parts
from edgeagent.api.http.request_context import KEY, RequestContext
from edgeagent.api.http.shutdown import Shutdown
from edgeagent.errors import BadRequest

logger = logging.getLogger(__name__)

READ_BYTES = 32 << 10  # read at once; every byte read must be kept, whoever sent it
WRITE_BYTES = 16 << 10  # unread beyond the kernel's buffer until a response has to wait
SMALL_BODY_BYTES = 64 << 10  # may stay unread without closing the connection
FIRST_REQUEST_S = 0.5  # for the first request of a connection that was accepted just before a stop
LINGER_S = 10.0
LINGER_SILENCE_S = 1.0
LINGER_BYTES = 64 << 20
MAX_UNREAD_BYTES = 3 << 20  # of clients that have read nothing for `UNREAD_S`; twice as much of all
UNREAD_S = 0.25
# Smaller pieces of a body of known length wait for more: handing one on costs more than receiving it.
CRUMB_BYTES = 4096
FRESH_S = 0.25  # a new connection's request is still on its way


class GuardedProtocol(H11Protocol):
    """The protocol of one connection (see the module). The server of a daemon sets the class attributes."""

    header_timeout_s = 15.0
    places = Places(512)
    write_timeout_s = 30.0
    daemon_shutdown = Shutdown()
    body_rate = BodyRate()
    conn: BoundedH11

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.conn = BoundedH11(self.config.h11_max_incomplete_event_size or READ_BYTES)
        self.is_known = False  # a request of this connection had a valid key, or none is needed
        self._is_lingering = False
        self._n_thrown_away = 0
        self._n_received = 0  # of the current request
        self._n_left: int | None = None  # bytes of its body that have yet to arrive; None: unknown
        self._n_crumbs = 0  # bytes that h11 has and uvicorn has not seen
        self._is_paused = False
        self._has_upgraded = False  # nothing of this protocol acts on the transport from now on
        self._unread_since_s: float | None = None
        self._write_clock: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self._socket = transport
        cast(Any, transport).max_size = READ_BYTES  # asyncio's default is 256 KiB
        transport.set_write_buffer_limits(WRITE_BYTES)  # asyncio's default is 64 KiB
        super().connection_made(_LingeringClose(self, transport))  # type: ignore[arg-type]
        self.peer = peer_network(self.client[0] if self.client else "")
        self._made_s = self._since_s = self.loop.time()
        self._clock = self.loop.call_later(self.header_timeout_s, self._head_is_late)
        if not self.places.take():
            self._make_place()

    def data_received(self, data: bytes) -> None:
        self._n_received += len(data)
        if self._is_lingering:
            self._n_thrown_away += len(data)
            if self._n_thrown_away > LINGER_BYTES:
                self._socket.abort()
        elif self._is_crumb(len(data)):
            self.conn.receive_data(data)
        else:
            super().data_received(data)
        if self._n_received > FREE_BYTES:
            self._pace(len(data))

    def _is_crumb(self, n_bytes: int) -> bool:
        """Whether to wait for more of the body before it is handed on."""
        if self._n_left is None or self.cycle.response_complete:
            return False
        self._n_left -= n_bytes
        self._n_crumbs += n_bytes
        if self._n_left > 0 and self._n_crumbs < CRUMB_BYTES:
            return True
        self._n_crumbs = 0
        if self._n_left <= 0:
            self._n_left = None
        return False

    def handle_events(self) -> None:
        before = self.cycle
        super().handle_events()
        if self.cycle is not before:
            self._clock.cancel()
            self._since_s = self.loop.time()
            self._n_received = len(self.cycle.body)
            self._n_left = self._length_left()
            self.cycle.scope["state"][KEY] = RequestContext(
                connection=self, shutdown=self.daemon_shutdown
            )

    def _length_left(self) -> int | None:
        """The announced bytes of the new request's body that have yet to arrive, None if unknown."""
        n_announced = self._n_announced
        if n_announced is None or not self.cycle.more_body:
            return None
        return n_announced - len(self.cycle.body)

    @property
    def _n_announced(self) -> int | None:
        lengths = [v for name, v in self.cycle.scope["headers"] if name == b"content-length"]
        return int(lengths[0]) if lengths else None

    # --- the rate of large bodies

    def _pace(self, n_bytes: int) -> None:
        wait_s = self.body_rate.take(n_bytes)
        if wait_s > 0 and not self._is_paused and not self._socket.is_closing():
            self._is_paused = True
            self._socket.pause_reading()
            self.loop.call_later(wait_s, self._unpause)

    def _unpause(self) -> None:
        if not self._is_paused:  # a WebSocket paces itself
            return
        self._is_paused = False
        if not self._socket.is_closing() and (self._is_lingering or not self.flow.read_paused):
            self._socket.resume_reading()

    @property
    def is_paused(self) -> bool:
        return self._is_paused

    def on_response_complete(self) -> None:
        # Between requests uvicorn's keep-alive timer runs until the first byte of the next head.
        super().on_response_complete()
        if not (self.transport.is_closing() or self._has_upgraded) and self.is_waiting:
            self._since_s = self.loop.time()
            self._clock.cancel()
            self._clock = self.loop.call_later(
                self.timeout_keep_alive + self.header_timeout_s, self._head_is_late
            )

    def connection_lost(self, exc: Exception | None) -> None:
        self._clock.cancel()
        self._stop_write_clock()
        super().connection_lost(exc)

    # --- unread answers

    def pause_writing(self) -> None:
        super().pause_writing()
        self._unread_since_s = self.loop.time()
        # A little later than the stream's own timeout, which logs a better reason.
        self._write_clock = self.loop.call_later(self.write_timeout_s + 1, self._socket.abort)
        self._bound_unread()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._unread_since_s = None
        self._stop_write_clock()

    def _stop_write_clock(self) -> None:
        if self._write_clock is not None:
            self._write_clock.cancel()
            self._write_clock = None

    def _bound_unread(self) -> None:
        """Drop the clients that have not read for longest while unread answers take too much memory."""
        unread = [(c._unread_since_s, c) for c in self._all() if c._unread_since_s is not None]
        n_bytes = sum(c._socket.get_write_buffer_size() for _, c in unread)
        for since_s, connection in sorted(unread, key=lambda one: one[0]):
            is_slow = self.loop.time() - since_s >= UNREAD_S
            most = MAX_UNREAD_BYTES if is_slow else 2 * MAX_UNREAD_BYTES
            if n_bytes <= most or connection is self:
                return
            n_bytes -= connection._socket.get_write_buffer_size()
            connection._socket.abort()

    @property
    def is_reading(self) -> bool:
        """Whether the client takes what is sent, so that sending a piece does not wait."""
        return not self.flow.write_paused

    @property
    def takes_chunks(self) -> bool:
        """Whether a chunk of the response that is being sent can be written, so that the client reads it
        next."""
        is_blocked = self.flow.write_paused or self._socket.is_closing()
        return not is_blocked and self.conn.is_sending_chunks

    def write_chunk(self, data: bytes) -> None:
        """Write a chunk of the response, where it `takes_chunks`. `data` is not empty."""
        self._socket.write(chunk(data))

    # --- places

    @property
    def is_waiting(self) -> bool:
        """Whether no request is being answered on this connection."""
        return self.cycle is None or self.cycle.response_complete

    @property
    def seat(self) -> ConnectionSeat:
        """The value of this connection when places are short."""
        now_s = self.loop.time()
        unread_s = self._unread_since_s
        if self._is_lingering:
            return ConnectionSeat(ConnectionRank.LINGERING, self._since_s, self.peer)
        if unread_s is not None and now_s - unread_s >= UNREAD_S:
            standing = ConnectionRank.UNREAD if self.is_known else ConnectionRank.UNKNOWN
            return ConnectionSeat(standing, unread_s, self.peer)
        if cast(Any, self).cycle is None and now_s - self._made_s < FRESH_S:
            standing = ConnectionRank.FRESH
        elif self.is_waiting:
            standing = ConnectionRank.IDLE if self.is_known else ConnectionRank.UNKNOWN
        elif self.cycle.more_body:
            standing = ConnectionRank.SENDING if self.is_known else ConnectionRank.UNKNOWN
        else:
            standing = ConnectionRank.BUSY if unread_s is None else ConnectionRank.PAUSED
        return ConnectionSeat(standing, self._since_s, self.peer)

    def _all(self) -> list[GuardedProtocol]:
        return [c for c in self.connections if isinstance(c, GuardedProtocol)]

    def _make_place(self) -> None:
        others = [c for c in self._all() if c is not self and not c._socket.is_closing()]
        able = [*others, self]
        n_sockets = len(self.connections) - len(self._all())
        sockets = [ConnectionSeat(ConnectionRank.BUSY, 0.0, "")] * n_sockets  # WebSockets
        for i in self.places.choose([*sockets, *(c.seat for c in able)]):
            able[i - n_sockets]._socket.abort()

    def _head_is_late(self) -> None:
        if self.is_waiting and not self._socket.is_closing():
            self._socket.abort()

    # --- ends

    def shutdown(self) -> None:
        """End the connection because the daemon stops. A new one keeps a moment: its request is under way."""
        left_s = self._made_s + FIRST_REQUEST_S - self.loop.time()
        if cast(Any, self).cycle is None and left_s > 0:
            self.loop.call_later(left_s, self._end)
        else:
            super().shutdown()

    def _end(self) -> None:
        if not self._socket.is_closing():
            super().shutdown()

    @property
    def leaves_body(self) -> bool:
        """Whether an answer now has to close the connection, because too much of the body has yet to
        arrive."""
        cycle = self.cycle
        if cycle is None or not cycle.more_body:
            return False
        n_announced = self._n_announced
        is_small = n_announced is not None and n_announced <= SMALL_BODY_BYTES
        return cycle.waiting_for_100_continue or not is_small

    @property
    def is_lingering(self) -> bool:
        return self._is_lingering

    def linger(self) -> bool:
        """Wait for the client to read the answer and close. False: there is nothing to wait for."""
        has_more = self.cycle is not None and self.cycle.more_body
        if not (has_more or self.conn.trailing_data[0] or self.conn.their_state is h11.ERROR):
            return False
        if self.daemon_shutdown.has_begun or self._socket.is_closing():
            return False
        try:
            self._socket.write_eof()
        except OSError:  # the client has reset the connection
            return False
        self._is_lingering = True
        self._since_s = self.loop.time()
        self._clock.cancel()
        self._unset_keepalive_if_required()
        if self.cycle is not None:
            self.cycle.body = bytearray()
        self.conn = BoundedH11(READ_BYTES)  # also drops the bytes it held
        if not self._is_paused:
            self._socket.resume_reading()
        self._clock = self.loop.call_later(LINGER_SILENCE_S, self._close_if_silent, 0)
        return True

    def _close_if_silent(self, n_before: int) -> None:
        n = self._n_thrown_away
        is_silent = n == n_before and not self._is_paused
        if is_silent or self.loop.time() - self._since_s > LINGER_S:
            self._socket.close()
        else:
            self._clock = self.loop.call_later(LINGER_SILENCE_S, self._close_if_silent, n)

    def send_400_response(self, msg: str) -> None:
        """Answer malformed HTTP in the same format as other errors."""
        status, headers, body = encoded(
            BadRequest(f"{msg.rstrip('.')}: send HTTP/1.1 within the limits.")
        )
        headers += [(b"connection", b"close"), request_id()]
        try:
            output = self.conn.send(h11.Response(status_code=status, headers=headers))
            output += self.conn.send(h11.Data(data=body)) + self.conn.send(h11.EndOfMessage())
            self.transport.write(output)
        except h11.LocalProtocolError:
            logger.debug("bad_request_unanswerable")
        self.transport.close()
        if self.cycle is not None and not self.cycle.response_complete:
            self.cycle.disconnected = True  # wakes the response
            self.cycle.message_event.set()

    # --- WebSockets

    def _should_upgrade(self) -> bool:
        """Ignore a request to upgrade (RFC 9110, 7.8) but for the paths of WebSockets."""
        is_socket = parts(self.scope["path"]) in SOCKET_PATHS and self.scope["method"] == "GET"
        return is_socket and self._get_upgrade() == b"websocket"

    def handle_websocket_upgrade(self, event: h11.Request) -> None:
        """Hand the connection over, with the head as it was read. Another client's bytes cannot follow it:
        the answer has to come first."""
        # Imported with the first one: it brings a library that most daemons never use.
        from edgeagent.api.http.websocket import SocketProtocol

        self._leave_transport()
        head = [event.method, b" ", event.target, b" HTTP/1.1\r\n"]
        for name, value in self.headers:
            head += [name, b": ", value, b"\r\n"]
        protocol = SocketProtocol(
            config=self.config,
            server_state=self.server_state,
            app_state=self.app_state,
            write_timeout_s=self.write_timeout_s,
            shutdown=self.daemon_shutdown,
        )
        protocol.connection_made(self._socket)
        self._socket.set_protocol(protocol)
        if self.flow.write_paused:
            protocol.pause_writing()
        protocol.data_received(b"".join([*head, b"\r\n"]))

    def _leave_transport(self) -> None:
        self._has_upgraded = True
        self.connections.discard(self)
        self._clock.cancel()
        self._stop_write_clock()
        self._n_received = 0
        self._unpause()


class _LingeringClose:
    """The transport as uvicorn sees it: closing it waits for a client that is still sending."""

    def __init__(self, protocol: GuardedProtocol, transport: asyncio.Transport) -> None:
        self._protocol = protocol
        self._transport = transport

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def resume_reading(self) -> None:
        if not self._protocol.is_paused:
            self._transport.resume_reading()

    def close(self) -> None:
        if not self._protocol.is_lingering and not self._protocol.linger():
            self._transport.close()

    def is_closing(self) -> bool:
        return self._protocol.is_lingering or self._transport.is_closing()
