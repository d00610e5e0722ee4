"""The bounds of one WebSocket, on a transport of our own."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest
import uvicorn
from uvicorn.server import ServerState
from websockets.frames import Frame, Opcode

from edgeagent.api.http.request_context import context_of
from edgeagent.api.http.server import server
from edgeagent.api.http.shutdown import Shutdown
from edgeagent.api.http.websocket import MAX_FRAGMENTS, SocketProtocol
from edgeagent.settings.http import HttpSettings

HEAD = (
    b"GET /v1/realtime HTTP/1.1\r\nhost: localhost\r\nupgrade: websocket\r\nconnection: upgrade\r\n"
    b"sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)


class Transport(asyncio.Transport):
    """Notes what is done to it."""

    def __init__(self) -> None:
        super().__init__()
        self.sent = b""
        self.is_reading, self.is_aborted, self.is_closed = True, False, False

    def write(self, data: Any) -> None:
        self.sent += bytes(data)

    def pause_reading(self) -> None:
        self.is_reading = False

    def resume_reading(self) -> None:
        self.is_reading = True

    def abort(self) -> None:
        self.is_aborted = True

    def close(self) -> None:
        self.is_closed = True

    def is_closing(self) -> bool:
        return self.is_closed


class Socket:
    """An accepted WebSocket, and what its application has."""

    def __init__(self, write_timeout_s: float = 30.0, head: bytes = HEAD) -> None:
        self.transport, self.shutdown = Transport(), Shutdown()
        self.scope: Any = None
        self.taken: list[Any] = []
        self.accepted = asyncio.Event()

        async def app(scope: Any, receive: Any, send: Any) -> None:
            self.scope = scope
            await receive()
            await send({"type": "websocket.accept"})
            self.accepted.set()
            while (message := await receive())["type"] != "websocket.disconnect":
                self.taken.append(message)

        config = uvicorn.Config(app, ws="none", log_config=None, ws_max_size=4096, lifespan="off")
        config.load()
        self.protocol = SocketProtocol(
            config=config, server_state=ServerState(), app_state={}, write_timeout_s=write_timeout_s,
            shutdown=self.shutdown,
        )  # fmt: skip
        self.protocol.connection_made(self.transport)
        self.protocol.data_received(head)

    def send(self, opcode: Opcode, data: bytes = b"", *, fin: bool = True) -> None:
        frame = Frame(opcode, data, fin)
        self.protocol.data_received(frame.serialize(mask=True))


@pytest.fixture
async def socket():
    found = Socket(write_timeout_s=0.05)
    await found.accepted.wait()
    yield found
    if not found.protocol.disconnected:
        found.protocol.connection_lost(None)
    await asyncio.sleep(0)


async def test_the_application_learns_of_a_stop(socket):
    assert context_of(socket.scope).shutdown is socket.shutdown


async def test_a_client_that_reads_nothing_is_not_read_and_then_dropped(socket):
    socket.protocol.pause_writing()
    assert not socket.transport.is_reading
    async with asyncio.timeout(60):
        while not socket.transport.is_aborted:
            await asyncio.sleep(0.01)


async def test_a_client_that_reads_again_is_read_again(socket):
    socket.protocol.pause_writing()
    socket.protocol.resume_writing()
    assert socket.transport.is_reading
    assert socket.protocol._write_clock is None


async def test_a_message_that_is_too_large_closes(socket):
    socket.send(Opcode.TEXT, b"x" * 5000)
    assert socket.transport.is_closed
    assert (1009).to_bytes(2, "big") in socket.transport.sent


async def test_a_message_of_endless_empty_pieces_closes(socket):
    socket.send(Opcode.TEXT, b"", fin=False)
    for _ in range(MAX_FRAGMENTS):
        socket.send(Opcode.CONT, b"", fin=False)
    assert not socket.transport.is_closed
    socket.send(Opcode.CONT, b"", fin=False)
    assert socket.transport.is_closed
    socket.send(Opcode.CONT, b"", fin=False)
    assert (1009).to_bytes(2, "big") in socket.transport.sent


async def test_the_next_message_is_read_once_the_last_is_taken(socket):
    socket.send(Opcode.TEXT, b"one")
    assert not socket.transport.is_reading
    async with asyncio.timeout(60):
        while not socket.taken:
            await asyncio.sleep(0)
    assert socket.transport.is_reading
    assert socket.taken[0]["text"] == "one"


async def test_a_client_without_a_pong_is_closed(socket):
    socket.protocol.pending_ping_payload = b"1234"
    socket.protocol.keepalive_timeout()
    assert socket.transport.is_closed
    assert (1011).to_bytes(2, "big") in socket.transport.sent


async def test_keys_and_messages_are_logged_at_no_level(caplog):
    async def end() -> None:
        pass

    server(Any, HttpSettings(), at_start=list, at_stop=list, at_end=end)
    caplog.set_level(logging.DEBUG)
    caplog.set_level(logging.DEBUG, "uvicorn.error")
    socket = Socket(head=HEAD.replace(b"\r\n\r\n", b"\r\nauthorization: Bearer ea_secret\r\n\r\n"))
    await socket.accepted.wait()
    socket.send(Opcode.TEXT, b"what was said")
    async with asyncio.timeout(60):
        while not socket.taken:
            await asyncio.sleep(0.01)
    socket.protocol.connection_lost(None)
    assert "ea_secret" not in caplog.text
    assert "what was said" not in caplog.text
