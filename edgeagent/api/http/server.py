"""The HTTP server: uvicorn on h11, with limits that uvicorn does not have.

Chosen by measurement (2 cores, EPYC Zen 5, 2026-11; uvicorn 0.54 with h11 and httptools, hypercorn 0.18,
granian 2.8): with httptools 100 MB of headers take 98 MB of memory, with h11, hypercorn and granian none;
granian cannot use an inherited socket and its two processes take 54 MB, uvicorn 27 and hypercorn 67; all
notice a lost client within 3 ms; 2,000 stream chunks take 26 ms with h11, 35 with hypercorn, 38 with
granian. `http/connection.py` adds what h11 lacks.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from collections.abc import Awaitable, Callable
from email.utils import formatdate
from types import FrameType
from typing import Any

import uvicorn
from litestar.types import ASGIApp
from uvicorn.server import ServerState

from edgeagent.api.http.body_rate import BodyRate
from edgeagent.api.http.connection import GuardedProtocol
from edgeagent.api.http.connection_limits import Places
from edgeagent.api.http.shutdown import Shutdown
from edgeagent.settings.http import HttpSettings

logger = logging.getLogger(__name__)

# What the kernel keeps of each connection; it doubles the number for its own use. Its defaults grow to
# several megabytes each way, which with hundreds of connections is more memory than an edge device has, and
# which no process is charged for. This much still fills 5 MB/s at a round trip of 50 ms.
SOCKET_BUFFER_BYTES = 128 << 10
N_TURNS_TO_BEGIN = 3  # of the event loop, from the acceptance of a connection to its protocol
LAST_WORDS_S = 2.0  # to send errors in, after the grace period
# The second one has the query of a request.
NOISE = ("Invalid HTTP request", '%s - "WebSocket', "Invalid UTF-8 sequence")


def is_fit_for_the_log(record: logging.LogRecord) -> bool:
    """Whether a line of uvicorn may be logged. Any client can cause the other ones at will, and they carry no
    information or too much: at level debug, every header and message of a WebSocket, keys included."""
    return record.levelno > logging.DEBUG and not record.msg.startswith(NOISE)


def send_at_once(sock: socket.socket) -> None:
    """Send small writes of accepted connections without waiting for an acknowledgement.

    An answer is written as head and body: without this the body waits for the client's delayed
    acknowledgement of the head, 40 ms on Linux. asyncio sets it only for sockets that name their protocol.
    """
    if sock.family in (socket.AF_INET, socket.AF_INET6):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def bound_buffers(sock: socket.socket) -> None:
    """Bound the kernel's memory for each connection that a listening socket accepts from now on."""
    for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):
        sock.setsockopt(socket.SOL_SOCKET, option, SOCKET_BUFFER_BYTES)


class State(ServerState):
    """uvicorn's state, whose header Date is made when a response needs it. uvicorn renews it every second,
    for which a daemon would wake up that nobody asks anything."""

    def __init__(self, encoded_headers: list[tuple[bytes, bytes]]) -> None:
        self._encoded_headers = encoded_headers
        self._dated_headers: list[tuple[bytes, bytes]] = []
        self._at_s = 0
        super().__init__()

    @property
    def default_headers(self) -> list[tuple[bytes, bytes]]:
        """The headers of a response that begins now."""
        now_s = int(time.time())
        if now_s != self._at_s:
            date = formatdate(now_s, usegmt=True).encode()
            self._at_s = now_s
            self._dated_headers = [(b"date", date), *self._encoded_headers]
        return self._dated_headers

    @default_headers.setter
    def default_headers(self, headers: list[tuple[bytes, bytes]]) -> None:
        """What uvicorn makes at the start and every second is not needed."""


class Server(uvicorn.Server):
    """uvicorn's server, which ends by telling its clients.

    `at_start` is called once connections are accepted, `at_stop` when the server is told to stop, `at_end`
    after the grace period.
    """

    def __init__(
        self,
        config: uvicorn.Config,
        shutdown: Shutdown,
        grace_s: float,
        *,
        at_start: Callable[[], None],
        at_stop: Callable[[], None],
        at_end: Callable[[], Awaitable[None]],
    ) -> None:
        super().__init__(config)
        self._at_start = at_start
        self._at_stop = at_stop
        self._shutdown = shutdown
        self._grace_s = grace_s
        self._at_end = at_end
        self._loop: asyncio.AbstractEventLoop | None = None
        self._signalled = asyncio.Event()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        super().handle_exit(sig, frame)
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._signalled.set)

    async def main_loop(self) -> None:
        """Wait for a signal. uvicorn's own loop wakes ten times a second, also while nobody asks anything,
        for a date that `State` makes when it is needed."""
        self._loop = asyncio.get_running_loop()
        if not self.should_exit:
            await self._signalled.wait()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        self.server_state = State(self.config.encoded_headers)
        await super().startup(sockets)
        if not self.should_exit:
            self._at_start()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Accept no more requests, let answers finish for a while, then end them with an error."""
        self._at_stop()
        await self._stop_accepting()
        end = asyncio.create_task(self._end(), name="shutdown")
        try:
            await super().shutdown(sockets)
        finally:
            end.cancel()

    async def _stop_accepting(self) -> None:
        """Accept no more connections, and let those begin that were accepted: asyncio resets the ones without
        a transport when their server is closed."""
        loop = asyncio.get_running_loop()
        for listening in self.servers:
            for sock in listening.sockets:
                loop.remove_reader(sock.fileno())
        for _ in range(N_TURNS_TO_BEGIN):
            await asyncio.sleep(0)

    async def _end(self) -> None:
        await asyncio.sleep(self._grace_s)
        logger.info("answers_interrupted n=%d", len(self.server_state.tasks))
        self._shutdown.begin()
        await self._at_end()


def server(
    app: ASGIApp,
    settings: HttpSettings,
    *,
    max_message_bytes: int = 1 << 20,
    at_start: Callable[[], None],
    at_stop: Callable[[], None],
    at_end: Callable[[], Awaitable[None]],
) -> uvicorn.Server:
    """A server for sockets that already listen, ours or systemd's. `at_end` ends work that continues
    without its client. `max_message_bytes` bounds messages of WebSockets."""
    shutdown = Shutdown()
    protocol: Any = type(
        "Protocol",
        (GuardedProtocol,),
        {
            "header_timeout_s": settings.header_timeout_s,
            "places": Places(settings.max_connections),
            "write_timeout_s": settings.write_timeout_s,
            "daemon_shutdown": shutdown,
            "body_rate": BodyRate(),
        },
    )
    logging.getLogger("uvicorn.error").addFilter(is_fit_for_the_log)
    config = uvicorn.Config(
        app,
        http=protocol,
        ws="none",  # connection.py upgrades itself
        ws_max_size=max_message_bytes,
        ws_per_message_deflate=False,
        lifespan="on",
        loop="asyncio",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        h11_max_incomplete_event_size=settings.max_header_bytes,
        timeout_keep_alive=30,
        # uvicorn cancels only responses that do not end by themselves.
        timeout_graceful_shutdown=settings.shutdown_grace_s + LAST_WORDS_S,  # type: ignore[arg-type]
    )
    return Server(
        config,
        shutdown,
        settings.shutdown_grace_s,
        at_start=at_start,
        at_stop=at_stop,
        at_end=at_end,
    )
