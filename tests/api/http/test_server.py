"""The HTTP server under clients that are slow, many, huge or wrong."""

from __future__ import annotations

import asyncio
import contextlib
import json
import select
import signal
import socket
import time
from collections.abc import Iterator
from email.utils import parsedate_to_datetime
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from edgeagent.api.http.server import (
    SOCKET_BUFFER_BYTES,
    State,
    bound_buffers,
    send_at_once,
    server,
)
from edgeagent.daemon.sockets import bind, listen
from edgeagent.settings.http import HttpSettings
from tests.api.wire import connect, error_of, exchange, post, read_reply, request
from tests.conftest import DaemonProcess, serving, wait_for

BOMB_BYTES = 20 << 20
PIECE = 64 << 10


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DaemonProcess]:
    directory: Path = tmp_path_factory.mktemp("server")
    with serving(
        directory / "models",
        directory / "state",
        preload=False,
        header_timeout_s=2.0,
        max_connections=60,
    ) as daemon:
        yield daemon


def is_closed(sock: socket.socket) -> bool:
    """Whether the other side has ended the connection, whatever it said before."""
    with contextlib.suppress(ConnectionError):
        while select.select([sock], [], [], 0)[0]:
            if not sock.recv(PIECE):
                return True
        return False
    return True


def bomb(shape: str) -> Iterator[bytes]:
    """The pieces of a head of BOMB_BYTES that never ends."""
    yield b"GET /health HTTP/1.1\r\nHost: localhost\r\n"
    if shape == "one long value":
        yield b"X-Bomb: "
        piece = b"a" * PIECE
    elif shape == "many headers":
        piece = b"".join(b"X-%d: a\r\n" % i for i in range(8000))
    else:
        piece = b"a" * PIECE  # a name that never comes to its colon
    for _ in range(BOMB_BYTES // len(piece)):
        yield piece


@pytest.mark.parametrize("shape", ["one long value", "many headers", "one long name"])
def test_a_header_bomb_is_refused_and_costs_no_memory(daemon: DaemonProcess, shape):
    assert httpx.get(f"{daemon.url}/health").status_code == 200
    before = psutil.Process(daemon.pid).memory_info().rss
    n_sent = 0
    with connect(daemon.url) as sock:
        with contextlib.suppress(ConnectionError):
            for piece in bomb(shape):
                sock.sendall(piece)
                n_sent += len(piece)
                if is_closed(sock):
                    break
        wait_for(lambda: is_closed(sock))
    assert n_sent < BOMB_BYTES, "the connection was closed long before the end"
    assert psutil.Process(daemon.pid).memory_info().rss - before < 8 << 20
    assert httpx.get(f"{daemon.url}/health").status_code == 200


def test_a_head_over_the_bound_is_answered_in_openais_shape(daemon: DaemonProcess):
    # What comes in one piece with its end is parsed whole, so the head has to stay unfinished.
    with connect(daemon.url) as sock:
        sock.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\nX-Long: " + b"a" * (70 << 10))
        reply = read_reply(sock)
    assert reply.status in (400, 431)
    assert reply.error["type"] == "invalid_request_error"


@pytest.mark.parametrize(
    "data",
    [
        b"\r\n\r\nnonsense\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET /nothing HTTP/9.9\r\nHost: localhost\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost localhost\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nContent-Length: x\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: gzip\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nA: b\x00c\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\n folded: x\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 a TLS hello\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ],
    ids=lambda data: repr(data[:30])[2:-1],
)
def test_what_is_no_http_is_a_400_in_openais_shape(daemon: DaemonProcess, data):
    reply = exchange(daemon.url, data)
    assert reply.status in (400, 403, 404)
    assert reply.error["type"] == "invalid_request_error"
    assert reply.headers["x-request-id"].startswith("req_")


def test_a_chunk_that_is_no_chunk_is_no_500(daemon: DaemonProcess):
    head = request("POST", "/v1/chat/completions", "Content-Type: application/json")
    head = head.replace(b"Content-Length: 0", b"Transfer-Encoding: chunked")
    with connect(daemon.url) as sock:
        sock.sendall(head + b"zz\r\nnonsense\r\n")
        with contextlib.suppress(ConnectionError):
            data = sock.recv(PIECE)
            assert not data or b" 400 " in data.splitlines()[0]
    assert httpx.get(f"{daemon.url}/health").status_code == 200


def test_two_requests_in_one_piece_get_two_answers(daemon: DaemonProcess):
    with connect(daemon.url) as sock:
        sock.sendall(request("GET", "/health") + request("GET", "/nothing"))
        assert read_reply(sock).status == 200


def test_a_head_that_trickles_is_cut_at_its_deadline(daemon: DaemonProcess):
    began = time.monotonic()
    with connect(daemon.url) as sock:
        sock.sendall(b"GET /health HTTP/1.1\r\n")

        def trickle() -> bool:
            with contextlib.suppress(ConnectionError):
                sock.sendall(b"a")
            return is_closed(sock)

        wait_for(trickle)
    assert time.monotonic() - began >= 1.5, "the deadline is the head's, not that of its first byte"


def test_trickling_sockets_do_not_keep_a_good_client_waiting(daemon: DaemonProcess):
    with contextlib.ExitStack() as stack:
        slow = [stack.enter_context(connect(daemon.url)) for _ in range(50)]
        for sock in slow:
            sock.sendall(b"GET /health HTTP/1.1\r\nHost: loc")
        for _ in range(20):
            assert httpx.get(f"{daemon.url}/health", timeout=60).status_code == 200


def test_when_all_connections_are_taken_an_idle_one_makes_place(daemon: DaemonProcess):
    with contextlib.ExitStack() as stack:
        idle = [stack.enter_context(connect(daemon.url)) for _ in range(80)]
        assert httpx.get(f"{daemon.url}/health", timeout=60).status_code == 200
        wait_for(lambda: sum(map(is_closed, idle)) >= 20)


def test_a_client_that_does_not_read_is_dropped_and_hurts_nobody_else(tmp_path: Path):
    with (
        serving(
            tmp_path / "models", tmp_path / "state", preload=False, write_timeout_s=1.0
        ) as daemon,
        socket.socket() as deaf,
    ):
        size = len(httpx.get(f"{daemon.url}/schema/openapi.json", timeout=60).content)
        n = (12 << 20) // size  # far more than the kernel's buffers hold
        before = psutil.Process(daemon.pid).memory_info().rss
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        deaf.connect(connect_address(daemon.url))
        deaf.sendall(request("GET", "/schema/openapi.json") * n)
        port = deaf.getsockname()[1]

        def is_served() -> bool:
            connections = psutil.Process(daemon.pid).net_connections()
            return any(c.raddr and c.raddr.port == port for c in connections)

        wait_for(is_served)
        assert httpx.get(f"{daemon.url}/health").status_code == 200
        wait_for(lambda: not is_served(), 30)
        assert psutil.Process(daemon.pid).memory_info().rss - before < 16 << 20
        assert httpx.get(f"{daemon.url}/health").status_code == 200


def connect_address(url: str) -> tuple[str, int]:
    host, _, port = url.removeprefix("http://").rpartition(":")
    return host, int(port)


def test_the_openapi_page_describes_the_endpoints(daemon: DaemonProcess):
    schema = httpx.get(f"{daemon.url}/schema/openapi.json", timeout=60).json()
    assert {"/v1/chat/completions", "/v1/completions", "/v1/models", "/health", "/ready"} <= set(
        schema["paths"]
    )
    body = schema["paths"]["/v1/chat/completions"]["post"]["requestBody"]["content"]
    assert "messages" in json.dumps(body)
    embeddings = schema["paths"]["/v1/embeddings"]["post"]
    assert "encoding_format" in json.dumps(embeddings["requestBody"])
    assert "EmbeddingAnswer" in json.dumps(embeddings["responses"]["200"])
    assert {"/tokenize", "/detokenize"} <= set(schema["paths"])
    assert '"examples"' not in json.dumps(schema["paths"]), "Litestar would invent random ones"


def test_the_documentation_is_whole_without_a_network_and_runs_nothing(daemon: DaemonProcess):
    reply = httpx.get(f"{daemon.url}/schema")
    assert reply.status_code == 200 and reply.headers["content-type"].startswith("text/html")
    seen = Page()
    seen.feed(reply.text)
    seen.close()
    assert not seen.open, "every element ends"
    assert "script" not in seen.tags
    assert all(link.startswith(("/schema/", "#", "data:")) for link in seen.links)
    anchors = {f"#{name}" for name in seen.ids}
    assert {link for link in seen.links if link.startswith("#")} <= anchors
    text = "".join(seen.text)
    schema = httpx.get(f"{daemon.url}/schema/openapi.json", timeout=60).json()
    assert all(path in text for path in schema["paths"])
    for told in ("max_completion_tokens", "presence_penalty", "at least -2, at most 2", "required"):
        assert told in text
    assert httpx.get(f"{daemon.url}/schema/docs").text == reply.text


class Page(HTMLParser):
    """What a page consists of."""

    VOID = frozenset({"meta", "link", "!doctype"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.links: list[str] = []
        self.ids: set[str] = set()
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        if tag not in self.VOID:
            self.open.append(tag)
        self.links += [value or "" for name, value in attrs if name in ("src", "href")]
        self.ids |= {value or "" for name, value in attrs if name == "id"}
        assert not [name for name, _ in attrs if name.startswith("on")]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def test_without_a_model_the_daemon_is_up_and_says_what_to_do(daemon: DaemonProcess):
    ready = httpx.get(f"{daemon.url}/ready")
    assert ready.status_code == 503 and "models install" in ready.json()["reason"]
    reply = exchange(
        daemon.url, post("/v1/chat/completions", {"messages": [{"role": "user", "content": "Hi"}]})
    )
    assert reply.status == 503
    assert "models install" in reply.error["message"]
    assert int(reply.headers["retry-after"]) > 0
    listed = [model["id"] for model in httpx.get(f"{daemon.url}/v1/models").json()["data"]]
    assert all(name.startswith("auto") for name in listed), "routes, and no model"
    assert error_of(httpx.get(f"{daemon.url}/v1/models/x").json())["code"] in ("model_not_found",)


def test_connections_do_not_hold_back_small_pieces():
    with bind("127.0.0.1", 0) as listening:
        listen(listening)
        send_at_once(listening)
        with socket.create_connection(listening.getsockname()):
            accepted, _ = listening.accept()
            with accepted:
                assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1


def test_the_kernel_keeps_little_of_a_connection_that_is_not_read():
    with bind("127.0.0.1", 0) as listening:
        listen(listening)
        bound_buffers(listening)
        with socket.create_connection(listening.getsockname()) as client:
            accepted, _ = listening.accept()
            with accepted:
                for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):
                    n_bytes = accepted.getsockopt(socket.SOL_SOCKET, option)
                    assert n_bytes <= 2 * SOCKET_BUFFER_BYTES
                client.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 14)
                client.setblocking(False)
                n_sent = 0
                with contextlib.suppress(BlockingIOError):
                    while n_sent < 64 << 20:
                        n_sent += client.send(b"x" * (1 << 14))
                assert n_sent < 2 << 20


async def test_a_signal_ends_the_wait_at_once():
    async def nothing(*_: object) -> None:
        """An application, and what is done at the end."""

    served = server(
        nothing, HttpSettings(), at_start=lambda: None, at_stop=lambda: None, at_end=nothing
    )
    loop = asyncio.create_task(served.main_loop())
    await asyncio.sleep(0)
    asyncio.get_running_loop().call_soon(served.handle_exit, signal.SIGTERM, None)
    async with asyncio.timeout(60):
        await loop


@pytest.mark.parametrize("n_turns", range(6))
async def test_a_stop_resets_no_connection_that_was_accepted(n_turns: int):
    """Clients connect and ask, and the server stops some turns of the event loop later: it answers all that
    it has accepted. The others stay in the queue of the socket, for the next daemon."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        while scope["type"] == "lifespan":
            message = await receive()
            await send({"type": f"{message['type']}.complete"})
            if message["type"] == "lifespan.shutdown":
                return
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body"})

    async def nothing() -> None:
        """At the end."""

    served = server(
        app, HttpSettings(), at_start=lambda: None, at_stop=lambda: None, at_end=nothing
    )
    with bind("127.0.0.1", 0) as listening, contextlib.ExitStack() as stack:
        listen(listening)
        if not served.config.loaded:
            served.config.load()
        served.lifespan = served.config.lifespan_class(served.config)
        await served.startup([listening.dup()])
        clients = [
            stack.enter_context(socket.create_connection(listening.getsockname())) for _ in range(8)
        ]
        for client in clients:
            client.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        for _ in range(n_turns):
            await asyncio.sleep(0)
        await served.shutdown([])
        listening.settimeout(0)
        n_queued = 0
        with contextlib.suppress(BlockingIOError):
            while True:
                listening.accept()[0].close()
                n_queued += 1
        replies = await asyncio.gather(
            *(asyncio.to_thread(reply_or_nothing, client) for client in clients)
        )
    assert sum(reply.startswith(b"HTTP/1.1 204") for reply in replies) == len(clients) - n_queued
    assert n_turns < 2 or not n_queued


def reply_or_nothing(client: socket.socket) -> bytes:
    client.settimeout(30)
    with contextlib.suppress(OSError):
        return client.recv(PIECE)
    return b""


def test_the_date_of_a_response_is_that_of_its_time():
    """No clock wakes the server for it."""
    state = State([(b"server", b"edgeagent")])
    state.default_headers = [(b"date", b"of uvicorn")]
    first = dict(state.default_headers)
    assert first[b"server"] == b"edgeagent"
    assert abs(parsedate_to_datetime(first[b"date"].decode()).timestamp() - time.time()) < 5


def test_an_answer_on_a_connection_that_waited_has_the_date_of_now(daemon: DaemonProcess):
    with httpx.Client(base_url=daemon.url) as client:
        for _ in range(2):
            sent = parsedate_to_datetime(client.get("/health").headers["date"]).timestamp()
            assert abs(sent - time.time()) < 2
            wait_for(lambda sent=sent: time.time() - sent > 1.5)
