"""What is refused before any route sees it: foreign hosts, foreign pages, forms, floods of bytes."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from edgeagent.api.http import host_and_origin
from edgeagent.errors import BadRequest
from edgeagent.settings.http import HttpSettings
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
        "ward-7.local.evil", "loc\xe4lhost", "localhost:65536", "localhost:" + "1" * 5000,
        "[::1]:" + "9" * 5000,
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


OLD = b"GET /v1/models HTTP/1.0\r\n"


def test_http_1_0_needs_no_host_from_this_machine_and_no_origin_may_come_with_it(
    daemon: DaemonProcess,
):
    assert exchange(daemon.url, OLD + b"\r\n").status == 200
    assert exchange(daemon.url, OLD + b"Host: localhost\r\n\r\n").status == 200
    for line in (
        b"Host: evil.example",
        b"Host: a\r\nHost: b",
        b"Origin: http://evil.example",
        b"Origin: null",
    ):
        reply = exchange(daemon.url, OLD + line + b"\r\n\r\n")
        assert reply.status in (400, 403), line
    assert exchange(daemon.url, b"GET /v1/models HTTP/1.1\r\n\r\n").status == 400


@pytest.mark.parametrize(
    ("is_local", "client", "version", "is_allowed"),
    [
        (True, ("127.0.0.1", 1), "1.0", True),
        (True, ("::1", 1), "1.0", True),
        (True, None, "1.0", True),  # a Unix socket
        (True, ("127.0.0.1", 1), "1.1", False),
        (True, ("192.168.1.2", 1), "1.0", False),
        (False, ("127.0.0.1", 1), "1.0", False),
    ],
)
def test_only_where_nobody_else_can_reach_the_daemon_a_host_may_be_missing(
    is_local, client, version, is_allowed
):
    scope: Any = {"headers": [], "client": client, "http_version": version}
    rules = host_and_origin.rules(HttpSettings(), is_local=is_local)
    if is_allowed:
        host_and_origin.check_host(scope, rules)
    else:
        with pytest.raises(BadRequest):
            host_and_origin.check_host(scope, rules)


@pytest.mark.parametrize(
    ("target", "status"),
    [
        ("http://localhost/v1/models", 200),
        ("http://LOCALHOST:{port}/v1/models?x=http://evil.example/", 200),
        ("HTTP://[::1]:{port}/v1/models", 200),
        ("https://127.0.0.1/v1//models", 200),
        ("http://ward-7.local/health", 200),
        ("http://localhost", 200),
        ("http://localhost?x", 200),
        ("http://localhost/nothing", 404),
        ("http://evil.example/v1/models", 403),
        ("http://evil.example:{port}/v1/models", 403),
        ("http://localhost@evil.example/v1/models", 403),
        ("http://evil@localhost/v1/models", 403),
        ("http://localhost.evil.example/v1/models", 403),
        ("http:///v1/models", 403),
        ("http://localhost%2fevil/v1/models", 403),
        ("ftp://localhost/v1/models", 404),
        ("localhost:80", 404),
        ("*", 404),
    ],
)
def test_a_target_in_absolute_form_names_a_host_of_ours_too(daemon: DaemonProcess, target, status):
    port = daemon.url.rpartition(":")[2]
    target = target.format(port=port)
    assert exchange(daemon.url, request("GET", target)).status == status
    reply = exchange(daemon.url, request("GET", target, host="evil.example"))
    assert reply.status == 403, "whatever the target, Host must be ours"


def test_an_absolute_target_has_the_errors_of_its_path(daemon: DaemonProcess):
    reply = exchange(daemon.url, request("POST", "http://localhost/api/chat", body=b""))
    assert list(json.loads(reply.body)) == ["error"] and reply.status == 400


def test_every_get_has_a_head_with_the_same_headers_and_no_body(daemon: DaemonProcess):
    document = httpx.get(f"{daemon.url}/schema/openapi.json", timeout=60).json()
    paths = [path for path, methods in document["paths"].items() if "get" in methods]
    paths += ["/schema", "/schema/openapi.json", "/nothing", "/v1/models/absent", CHAT + "/x"]
    assert len(paths) > 20
    for path in paths:
        before = exchange(daemon.url, request("GET", path))
        with connect(daemon.url) as sock:
            sock.sendall(request("HEAD", path) + request("GET", "/health", "Connection: close"))
            data = b"".join(iter(lambda: sock.recv(65536), b""))
        after = exchange(daemon.url, request("GET", path))
        head, _, rest = data.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 %d " % before.status), path
        assert rest.startswith(b"HTTP/1.1 200 "), "the next answer, and no body before it"
        assert (b"content-length: " in head) == ("content-length" in before.headers), path
        # Measurements and the memory in use change from one read to the next, and their length with them.
        if before.body == after.body and "content-length" in before.headers:
            assert f"content-length: {before.headers['content-length']}".encode() in head, path
    assert httpx.head(f"{daemon.url}/tokenize").status_code == 405


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("POST", "/v1/uploads", 404),
        ("POST", "/v1/responses/compact", 404),
        ("POST", "/v1/messages/batches", 404),
        ("POST", "/v1/images/generations", 404),
        ("PUT", "/nothing/at/all", 404),
        ("POST", CHAT, 415),
        ("POST", "/v1/messages", 415),
    ],
)
def test_what_is_not_there_is_a_404_whatever_the_body_says_it_is(
    daemon: DaemonProcess, method, path, status
):
    form = b'--x\r\nContent-Disposition: form-data; name="a"\r\n\r\n1\r\n--x--\r\n'
    for kind in ("multipart/form-data; boundary=x", "text/plain"):
        data = request(method, path, f"Content-Type: {kind}", body=form)
        assert exchange(daemon.url, data).status == status
    if status == 404:
        assert exchange(daemon.url, request(method, path, JSON, body=b"{}")).status == 404


def test_a_method_that_a_path_has_not_is_told_those_that_it_has(daemon: DaemonProcess):
    reply = exchange(daemon.url, request("PUT", "/v1/conversations", JSON, body=b"{}"))
    assert reply.status == 405 and "POST" in reply.headers["allow"].split(", ")
    reply = exchange(daemon.url, request("DELETE", "/health"))
    assert reply.status in (404, 405)


JSON = "Content-Type: application/json"
TEXT = b'{"content": "hello", "unknown_field": 1}'


@pytest.mark.parametrize(
    ("encoding", "body"),
    [
        ("gzip", gzip.compress(TEXT)),
        ("deflate", zlib.compress(TEXT)),
        ("x-gzip", gzip.compress(TEXT)),
        ("identity", TEXT),
        ("identity", b"\xef\xbb\xbf" + TEXT),
        ("gzip", gzip.compress(b"\xef\xbb\xbf" + TEXT)),
    ],
    ids=["gzip", "deflate", "x-gzip", "identity", "mark", "gzip and mark"],
)
def test_a_body_may_be_compressed_and_begin_with_a_byte_order_mark(
    daemon: DaemonProcess, encoding, body
):
    line = f"Content-Encoding: {encoding}"
    reply = exchange(daemon.url, request("POST", "/tokenize", JSON, line, body=body))
    assert reply.status == 400 and "unknown_field" in reply.error["message"], "it was read"


def test_a_body_may_be_compressed_with_zstd(daemon: DaemonProcess):
    zstd = pytest.importorskip("backports.zstd")
    line = "Content-Encoding: zstd"
    reply = exchange(daemon.url, request("POST", "/tokenize", JSON, line, body=zstd.compress(TEXT)))
    assert reply.status == 400 and "unknown_field" in reply.error["message"]


def test_an_encoding_that_we_lack_is_a_415_that_names_those_we_have(daemon: DaemonProcess):
    for encoding in ("br", "gzip, gzip", "compress"):
        line = f"Content-Encoding: {encoding}"
        reply = exchange(daemon.url, request("POST", "/tokenize", JSON, line, body=TEXT))
        assert reply.status == 415 and reply.headers["accept-encoding"] == "gzip, deflate, zstd"


def test_a_small_body_that_would_be_a_large_one_is_a_413(daemon: DaemonProcess):
    bomb = gzip.compress(b'{"content": "' + b"x" * (100 << 20) + b'"}')
    line = "Content-Encoding: gzip"
    reply = exchange(daemon.url, request("POST", "/tokenize", JSON, line, body=bomb))
    assert reply.status == 413 and reply.error["code"] == "body_too_large"
