"""Connections that take places, memory or time, beside a client who wants an answer."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from typing import Any

import httpx
import psutil
import pytest
import uvicorn
from uvicorn.server import ServerState

from edgeagent.api.http.connection import GuardedProtocol
from edgeagent.api.http.connection_limits import Places
from tests.api.wire import connect, exchange, post, read_reply, request
from tests.conftest import DaemonProcess, serving

CHAT = "/v1/chat/completions"
MB = 1 << 20
N_PLACES = 24
HEAD = (
    b"POST /v1/embeddings HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    b"Content-Length: 4000000\r\n\r\n"
)
OVER = HEAD.replace(b"4000000", b"60000000")
SCHEMA = request("GET", "/schema/openapi.json")


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DaemonProcess]:
    """A daemon with few places, without models and without keys: everybody is the local owner."""
    directory = tmp_path_factory.mktemp("connections")
    with serving(
        directory / "models", directory / "state", preload=False, max_connections=N_PLACES
    ) as daemon:
        yield daemon


@pytest.fixture(scope="module")
def keyed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[DaemonProcess, str]]:
    directory = tmp_path_factory.mktemp("connections-keyed")
    with serving(
        directory / "models", directory / "state", preload=False, max_connections=N_PLACES
    ) as daemon:
        body = {"name": "good", "scopes": ["chat"]}
        secret = httpx.post(f"{daemon.url}/admin/keys", json=body).json()["secret"]
        yield daemon, secret


KINDS = {
    "no body": HEAD,
    "no body of a size over the bound": OVER,
    "a part of a body": HEAD + b"x" * 100_000,
    "a part of a head": HEAD[:40],
    "nothing": b"",
    "chunks without an end": HEAD.replace(b"Content-Length: 4000000", b"Transfer-Encoding: chunked")
    + b"5\r\nhello\r\n" * 500,
    "unread answers": SCHEMA * 40,
    "an answer and then nothing": request("GET", "/health"),
}


def opened(stack: ExitStack, url: str, data: bytes) -> socket.socket:
    sock = stack.enter_context(connect(url))
    sock.settimeout(1)
    with suppress(OSError):  # it was given up already
        sock.sendall(data)
    return sock


@pytest.mark.parametrize("data", KINDS.values(), ids=list(KINDS))
def test_a_good_client_is_answered_beside_connections_that_take_every_place(
    daemon: DaemonProcess, data
):
    with ExitStack() as stack, httpx.Client() as kept:
        assert kept.get(f"{daemon.url}/v1/models").status_code == 200
        for _ in range(2 * N_PLACES):
            opened(stack, daemon.url, data)
        for _ in range(3):
            assert httpx.get(f"{daemon.url}/v1/models").status_code == 200
        assert kept.get(f"{daemon.url}/v1/models").status_code == 200


@pytest.mark.parametrize("data", KINDS.values(), ids=list(KINDS))
def test_who_has_no_key_takes_no_place_from_who_has_one(keyed: tuple[DaemonProcess, str], data):
    daemon, secret = keyed
    headers = {"Authorization": f"Bearer {secret}"}
    with ExitStack() as stack, httpx.Client(headers=headers) as kept:
        assert kept.get(f"{daemon.url}/v1/models").status_code == 200
        (stream,) = kept._transport._pool.connections  # type: ignore[attr-defined]
        for _ in range(2 * N_PLACES):
            opened(stack, daemon.url, data)
        assert kept.get(f"{daemon.url}/v1/models").status_code == 200
        assert kept._transport._pool.connections == [stream], "on the same connection"  # type: ignore[attr-defined]
        for _ in range(3):
            assert httpx.get(f"{daemon.url}/v1/models", headers=headers).status_code == 200


def test_unfinished_bodies_and_unread_answers_leave_the_memory_alone(daemon: DaemonProcess):
    process = psutil.Process(daemon.pid)
    for _ in range(3):
        httpx.get(f"{daemon.url}/schema/openapi.json")
    before = process.memory_info().rss
    with ExitStack() as stack:
        for _ in range(20):
            opened(stack, daemon.url, HEAD + b"[" * 3_999_999)
        for _ in range(40):
            opened(stack, daemon.url, SCHEMA * 40)
        assert httpx.get(f"{daemon.url}/v1/models").status_code == 200
        grown = process.memory_info().rss - before
    assert grown < 60 * MB, f"{grown / MB:.0f} MB"


@pytest.mark.parametrize("expects", [[], ["Expect: 100-continue"]])
def test_who_has_no_key_is_refused_before_a_byte_of_the_body(
    keyed: tuple[DaemonProcess, str], expects
):
    daemon, secret = keyed
    lines = ["Content-Type: application/json", "Content-Length: 4000000", *expects]
    head = "\r\n".join([f"POST {CHAT} HTTP/1.1", "Host: localhost", *lines, "", ""]).encode()
    with connect(daemon.url) as sock:
        sock.sendall(head)
        reply = read_reply(sock)
        assert reply.status in (401, 429) and reply.headers["connection"] == "close"
        assert sock.recv(1) == b""
    with connect(daemon.url) as sock:
        good = f"\r\nAuthorization: Bearer {secret}\r\n\r\n".encode()
        sock.sendall(head[:-4].replace(b"4000000", b"2") + good)
        if expects:
            assert sock.recv(1000).startswith(b"HTTP/1.1 100 ")
        sock.sendall(b"{}")
        assert read_reply(sock).status == 400


def test_a_body_in_a_great_many_pieces_is_refused(daemon: DaemonProcess):
    head = HEAD.replace(b"Content-Length: 4000000", b"Transfer-Encoding: chunked")
    with connect(daemon.url) as sock, suppress(OSError):
        sock.sendall(head + b"1\r\nx\r\n" * 100_000)
    with connect(daemon.url) as sock:
        sock.sendall(head + b"1\r\nx\r\n" * 6000)
        reply = read_reply(sock)
    assert reply.status == 400 and reply.error["code"] == "bad_request"


def test_a_client_that_writes_on_gets_to_read_why_it_was_refused(daemon: DaemonProcess):
    with connect(daemon.url) as sock:
        sock.sendall(OVER)
        for _ in range(100):
            sock.sendall(b"x" * 100_000)
        assert read_reply(sock).status == 413


def test_a_client_that_has_reset_the_connection_meanwhile_raises_nothing():
    errors: list[Any] = []

    async def serve_one() -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: errors.append(context))
        is_answered = asyncio.Event()
        client = socket.socket()

        async def app(scope: Any, receive: Any, send: Any) -> None:
            await send(
                {
                    "type": "http.response.start",
                    "status": 200,
                    "headers": [(b"content-length", b"2")],
                }
            )
            await send({"type": "http.response.body", "body": b"ok", "more_body": True})
            assert client.recv(1000).endswith(b"ok")
            client.close()  # what is written from now on is answered by a reset
            try:
                await send({"type": "http.response.body", "body": b""})
            except OSError as exc:
                errors.append(exc)
            is_answered.set()

        config = uvicorn.Config(app, lifespan="off", log_config=None)
        config.load()
        server = await loop.create_server(
            lambda: GuardedProtocol(config=config, server_state=ServerState(), app_state={}),
            "127.0.0.1", 0,
        )  # fmt: skip
        async with server:
            client.connect(server.sockets[0].getsockname())
            client.sendall(request("GET", "/") + b"no HTTP\r\n\r\n")
            await asyncio.wait_for(is_answered.wait(), 60)

    asyncio.run(serve_one())
    assert errors == []


def test_an_attempt_at_websocket_is_answered_as_http_and_logs_nothing(daemon: DaemonProcess):
    upgrade = [
        "Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
    ]  # fmt: skip
    for path, status in (("/v1/realtime", 404), ("/v1/models", 200), (CHAT, 200)):
        assert exchange(daemon.url, request("GET", path, *upgrade)).status in (status, 409)
    for data in (b"\x16\x03\x01\x02\x00", b"GET / HTTP/9.9\r\n\r\n", b"\r\n" * 50):
        with connect(daemon.url) as sock, suppress(OSError):
            sock.sendall(data)
            sock.shutdown(socket.SHUT_WR)
            sock.recv(1000)
    log = daemon.log.read_text()
    assert "upgrade" not in log.lower() and "websocket" not in log.lower()
    assert "Invalid HTTP" not in log


def test_pipelined_requests_are_answered_in_turn(daemon: DaemonProcess):
    paths = ["/health", "/v1/models", "/nothing", "/health"]
    bodies = [post(CHAT, {}), *(request("GET", path) for path in paths)]
    with connect(daemon.url) as sock:
        sock.sendall(b"".join(bodies) + request("GET", "/health", "Connection: close"))
        data = b"".join(iter(lambda: sock.recv(65536), b""))
    statuses = [int(part[:3]) for part in data.split(b"HTTP/1.1 ")[1:]]
    assert statuses == [400, 200, 200, 404, 200, 200]


def test_json_is_what_every_refusal_speaks(daemon: DaemonProcess):
    reply = exchange(daemon.url, OVER)
    assert json.loads(reply.body)["error"]["code"] == "body_too_large"


def test_who_guesses_keys_has_to_connect_anew_for_each(keyed: tuple[DaemonProcess, str]):
    daemon, secret = keyed
    wrong = request("GET", "/v1/models", "Authorization: Bearer wrong")
    with connect(daemon.url) as sock, suppress(OSError):
        sock.sendall(wrong * 100)
        data = b"".join(iter(lambda: sock.recv(65536), b""))
        assert data.count(b"HTTP/1.1 429 ") == 1 and data.count(b"HTTP/1.1 401 ") <= 20
    good = {"Authorization": f"Bearer {secret}"}
    assert httpx.get(f"{daemon.url}/v1/models", headers=good).status_code == 200


@pytest.mark.parametrize("n_more", [0, 40])
def test_a_body_in_crumbs_is_read_whole_and_the_connection_goes_on(daemon: DaemonProcess, n_more):
    body = json.dumps({"model": "nobody", "messages": [], "user": "x" * 5000}).encode()
    head = f"POST {CHAT} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    data = head.encode() + f"Content-Length: {len(body)}\r\n\r\n".encode() + body
    with connect(daemon.url) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for _ in range(2):
            sent = data + request("GET", "/health")[:n_more]
            for i in range(0, len(sent), 100):
                sock.sendall(sent[i : i + 100])
            assert read_reply(sock).status in (400, 404)
            if n_more:
                sock.sendall(request("GET", "/health")[n_more:])
                assert read_reply(sock).status == 200


def test_bodies_beyond_the_rate_are_read_in_the_end(daemon: DaemonProcess):
    """Ten bodies of 4 MB are more than the burst: they are slowed down, and each is answered."""
    with ExitStack() as stack:
        socks = [opened(stack, daemon.url, HEAD) for _ in range(10)]
        for sock in socks:
            sock.settimeout(60)
        with ThreadPoolExecutor(10) as pool:
            list(pool.map(lambda sock: sock.sendall(b"[" * 4_000_000), socks))
        replies = [read_reply(sock).status for sock in socks]
    assert set(replies) <= {400, 429, 503} and 400 in replies


class Transport(asyncio.Transport):
    """Notes what is done to it."""

    def __init__(self) -> None:
        super().__init__()
        self.is_reading, self.is_aborted = True, False
        self.protocol: Any = None

    def write(self, data: Any) -> None:
        pass

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        pass

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self.protocol = protocol

    def pause_reading(self) -> None:
        self.is_reading = False

    def resume_reading(self) -> None:
        self.is_reading = True

    def abort(self) -> None:
        self.is_aborted = True

    def close(self) -> None:
        pass

    def get_write_buffer_size(self) -> int:
        return 0

    def is_closing(self) -> bool:
        return self.is_aborted


UPGRADE = request(
    "GET", "/v1/realtime", "Connection: Upgrade", "Upgrade: websocket",
    "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
)  # fmt: skip


class Connection:
    """One of the connections of a server whose application answers nothing before it is let."""

    def __init__(self, state: ServerState, n_places: int = 8) -> None:
        self.let = asyncio.Event()

        async def app(scope: Any, receive: Any, send: Any) -> None:
            await self.let.wait()
            if scope["type"] == "http":
                await send({"type": "http.response.start", "status": 204, "headers": []})
                await send({"type": "http.response.body", "body": b""})

        config = uvicorn.Config(app, lifespan="off", log_config=None, ws="none")
        config.load()
        kind: Any = type("Protocol", (GuardedProtocol,), {"places": Places(n_places)})
        self.transport = Transport()
        self.protocol: Any = kind(config=config, server_state=state, app_state={})
        self.transport.protocol = self.protocol
        self.protocol.connection_made(self.transport)

    async def end(self) -> None:
        self.let.set()
        await asyncio.gather(*self.protocol.tasks, return_exceptions=True)
        self.transport.protocol.connection_lost(None)


async def test_what_the_old_protocol_had_begun_does_not_touch_the_websocket():
    one = Connection(ServerState())
    old = one.protocol
    old.pause_writing()
    write_clock = old._write_clock
    old._n_received, old._is_paused = 1 << 20, True
    one.transport.pause_reading()
    old.data_received(UPGRADE)
    new = one.transport.protocol
    assert new is not old
    assert write_clock.cancelled()
    assert one.transport.is_reading is False, "its client reads nothing, and is not read"
    new.resume_writing()
    assert one.transport.is_reading
    one.transport.pause_reading()
    old._unpause()
    assert not one.transport.is_reading, "the WebSocket alone says when it is read"
    await one.end()


async def test_a_websocket_behind_another_request_has_no_clock_of_a_late_head():
    one = Connection(ServerState())
    old = one.protocol
    old.data_received(request("GET", "/") + UPGRADE)
    one.let.set()
    async with asyncio.timeout(60):
        while one.transport.protocol is old:
            await asyncio.sleep(0.01)
    assert old._clock.cancelled()
    await one.end()


async def test_websockets_take_places_and_are_never_closed_for_another():
    state = ServerState()
    sockets = [Connection(state, 2) for _ in range(2)]
    for one in sockets:
        one.protocol.data_received(UPGRADE)
    third = Connection(state, 2)
    third.protocol._make_place()
    assert third.transport.is_aborted
    assert not any(one.transport.is_aborted for one in sockets)
    for one in (*sockets, third):
        one.let.set()
    for one in (*sockets, third):
        await one.end()
