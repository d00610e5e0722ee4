"""What is refused before any route sees it: foreign hosts, foreign pages, forms, floods of bytes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import httpx
import openai
import pytest

from tests.api.wire import connect, exchange, post, read_reply, request
from tests.conftest import DaemonProcess, serving

CHAT = "/v1/chat/completions"
PAGE = "https://app.example"


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DaemonProcess]:
    """A daemon without models: none of these requests gets as far as one."""
    directory: Path = tmp_path_factory.mktemp("guard")
    with serving(
        directory / "models", directory / "state", preload=False, allowed_origins=[PAGE],
        allowed_hosts=["ward-7.local"], body_timeout_s=1.0,
    ) as daemon:  # fmt: skip
        yield daemon


@pytest.mark.parametrize(
    "host",
    [
        "localhost",
        "LOCALHOST",
        "127.0.0.1",
        "127.0.0.1:{port}",
        "localhost:1",
        "[::1]",
        "[::1]:{port}",
        "ward-7.local",
    ],
)
def test_the_names_of_this_machine_are_hosts(daemon: DaemonProcess, host):
    port = daemon.url.rpartition(":")[2]
    assert (
        exchange(daemon.url, request("GET", "/health", host=host.format(port=port))).status == 200
    )


@pytest.mark.parametrize(
    "host",
    [
        "evil.example", "localhost.evil.example", "127.0.0.1.evil.example", "evil.example:8484",
        "evil@localhost", "localhost@evil.example", "localhost:evil", "localhost:", "localhost:80:80",
        "[::1", "::1", "[::1]x", "[::1]:x", "[evil]", "[::2]", "127.1", "0.0.0.0", "0x7f000001", "2130706433",
        "", " ", "localhost/evil", "localhost.", "localhost\\", "localhost#", "localhost%00", "[::1%25lo]",
        "ward-7.local.evil", "loc\xe4lhost",
    ],
)  # fmt: skip
def test_any_other_host_is_refused(daemon: DaemonProcess, host):
    reply = exchange(daemon.url, request("GET", "/v1/models", host=host))
    if host == "localhost:":
        # RFC 3986 allows an empty port; it names this machine all the same.
        assert reply.status in (200, 403)
        return
    assert reply.status in (400, 403)
    assert reply.error["type"] == "invalid_request_error"
    assert reply.headers["x-request-id"]


@pytest.mark.parametrize(
    "head",
    [
        b"GET /v1/models HTTP/1.1\r\n\r\n",
        b"GET /v1/models HTTP/1.1\r\nHost: localhost\r\nHost: localhost\r\n\r\n",
        b"GET /v1/models HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\n\r\n",
        b"GET /v1/models HTTP/1.1\r\nHost: evil.example\r\nX-Forwarded-Host: localhost\r\n\r\n",
        b"GET http://localhost/v1/models HTTP/1.1\r\nHost: evil.example\r\n\r\n",
    ],
)
def test_exactly_one_host_of_ours_is_needed(daemon: DaemonProcess, head):
    reply = exchange(daemon.url, head)
    assert reply.status in (400, 403)
    assert reply.error["message"]
    assert reply.headers["x-request-id"].startswith("req_")


@pytest.mark.parametrize(
    "origin",
    [
        "https://evil.example", "null", "", "file://", "http://", "https://", "http://[", "http://[::1",
        "http://localhost.evil.example", "http://localhost@evil.example", "https://app.example.evil",
        "https://app.example:444", "http://app.example", "chrome-extension://abc", "http://\xff",
    ],
)  # fmt: skip
def test_a_foreign_origin_is_a_403_with_no_cors_headers(daemon: DaemonProcess, origin):
    for data in (
        request("GET", "/v1/models", f"Origin: {origin}"),
        request("OPTIONS", CHAT, f"Origin: {origin}", "Access-Control-Request-Method: POST"),
        post(CHAT, {"messages": []}, f"Origin: {origin}"),
    ):
        reply = exchange(daemon.url, data)
        assert reply.status == 403
        assert reply.error["code"] == "forbidden"
        assert not any(name.startswith("access-control") for name in reply.headers)


def test_two_origins_are_a_403(daemon: DaemonProcess):
    data = request("GET", "/v1/models", f"Origin: {PAGE}", "Origin: https://evil.example")
    assert exchange(daemon.url, data).status == 403


def test_our_own_page_is_no_foreign_origin(daemon: DaemonProcess):
    host = daemon.url.removeprefix("http://")
    reply = exchange(daemon.url, request("GET", "/health", f"Origin: http://{host}", host=host))
    assert reply.status == 200


def test_preflight_from_an_allowed_page_lets_any_header_through(daemon: DaemonProcess):
    asked = "authorization, content-type, openai-beta, x-stainless-lang, x-stainless-retry-count"
    reply = httpx.options(
        f"{daemon.url}{CHAT}",
        headers={
            "Origin": PAGE,
            "Access-Control-Request-Method": "POST",
            "Access-Control-Request-Headers": asked,
        },
    )
    assert reply.status_code == 204
    assert reply.headers["access-control-allow-origin"] == PAGE
    assert reply.headers["access-control-allow-headers"] == asked
    assert "POST" in reply.headers["access-control-allow-methods"]
    assert reply.headers["vary"] == "Origin"
    assert "access-control-allow-credentials" not in reply.headers


def test_answers_and_errors_to_an_allowed_page_can_be_read_by_it(daemon: DaemonProcess):
    for reply in (
        httpx.get(f"{daemon.url}/v1/models", headers={"Origin": PAGE}),
        httpx.get(f"{daemon.url}/nothing", headers={"Origin": PAGE}),
        httpx.post(f"{daemon.url}{CHAT}", headers={"Origin": PAGE}, content=b"x"),
    ):
        assert reply.headers["access-control-allow-origin"] == PAGE


@pytest.mark.parametrize(
    "headers",
    [
        {"Authorization": "Bearer sk-anything"},
        {"Authorization": "Basic Zm9vOmJhcg=="},
        {"Authorization": "\xff"},
        {"x-stainless-lang": "python", "x-stainless-retry-count": "1"},
        {"OpenAI-Beta": "assistants=v2", "OpenAI-Organization": "org", "OpenAI-Project": "p"},
        {"Cookie": "a=b"},
        {"X-Forwarded-For": "8.8.8.8", "X-Forwarded-Proto": "https"},
    ],
)
def test_any_header_of_an_sdk_is_accepted(daemon: DaemonProcess, headers):
    lines = [f"{name}: {value}" for name, value in headers.items()]
    assert exchange(daemon.url, request("GET", "/v1/models", *lines)).status == 200


@pytest.mark.parametrize(
    "lines",
    [
        ["Content-Type: text/plain"],
        ["Content-Type: application/x-www-form-urlencoded"],
        ["Content-Type: multipart/form-data; boundary=x"],
        ["Content-Type: application/jsonx"],
        ["Content-Type: text/plain; application/json"],
        ["Content-Type: application/json", "Content-Type: text/plain"],
        ["Content-Type:"],
        [],
    ],
)
def test_a_body_that_does_not_say_json_is_a_415(daemon: DaemonProcess, lines):
    body = json.dumps({"messages": [{"role": "user", "content": "Hi"}]}).encode()
    for method in ("POST", "PUT", "PATCH"):
        reply = exchange(daemon.url, request(method, CHAT, *lines, body=body))
        assert reply.status == 415
        assert reply.error["code"] == "unsupported_media_type"


@pytest.mark.parametrize(
    "kind", ["application/json", "Application/JSON", "application/json; charset=utf-8"]
)
def test_json_may_be_announced_in_any_spelling(daemon: DaemonProcess, kind):
    reply = exchange(daemon.url, request("POST", CHAT, f"Content-Type: {kind}", body=b"{}"))
    assert reply.status == 400, "the empty object gets as far as the route"


def test_a_client_that_sends_10_mb_gets_to_see_the_413(daemon: DaemonProcess):
    with daemon.client() as client, pytest.raises(openai.APIStatusError) as caught:
        client.chat.completions.create(
            model="default", messages=[{"role": "user", "content": "x" * 10_000_000}]
        )
    assert caught.value.status_code == 413
    assert caught.value.code == "body_too_large"
    assert str(4 << 20) in caught.value.message


def test_chunks_without_an_announced_length_are_bounded_too(daemon: DaemonProcess):
    reply = httpx.post(
        f"{daemon.url}{CHAT}",
        content=(b"x" * 65536 for _ in range(160)),
        headers={"Content-Type": "application/json"},
    )
    assert reply.status_code == 413
    assert reply.json()["error"]["code"] == "body_too_large"


def test_a_length_that_is_a_lie_is_answered_without_the_bytes(daemon: DaemonProcess):
    head = request("POST", CHAT, "Content-Type: application/json").replace(
        b"Content-Length: 0", b"Content-Length: 99999999999999"
    )
    reply = exchange(daemon.url, head)
    assert reply.status in (400, 413)
    assert reply.error["message"]


def test_a_body_that_stops_arriving_is_given_up(daemon: DaemonProcess):
    with connect(daemon.url) as sock:
        sock.sendall(
            post(CHAT, b'{"messages": ').replace(b"Content-Length: 13", b"Content-Length: 99")
        )
        reply = read_reply(sock)
    assert reply.status == 400
    assert "1 s" in reply.error["message"]


def test_a_body_over_the_bound_is_refused_on_its_head_and_the_connection_closed(
    daemon: DaemonProcess,
):
    head = post(CHAT, b"x" * 5_000_000)[:300]
    with connect(daemon.url) as sock:
        sock.sendall(head)
        reply = read_reply(sock)
        assert reply.status == 413 and reply.headers["connection"] == "close"
        assert sock.recv(1) == b""


def test_a_connection_is_kept_after_an_error_with_a_small_body(daemon: DaemonProcess):
    with connect(daemon.url) as sock:
        for _ in range(3):
            sock.sendall(request("POST", CHAT, "Content-Type: text/plain", body=b"x" * 50_000))
            assert read_reply(sock).status == 415
        sock.sendall(request("GET", "/health"))
        assert read_reply(sock).status == 200
