"""HTTP by hand, for what no well-behaved client sends."""

from __future__ import annotations

import http.client
import json
import socket
from typing import Any, NamedTuple
from urllib.parse import urlsplit

TIMEOUT_S = 30.0


class Reply(NamedTuple):
    """A response. Header names are in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def error(self) -> dict[str, Any]:
        """The error of a body that is exactly OpenAI's shape; fails the test when it is not."""
        return error_of(json.loads(self.body))


def error_of(body: Any) -> dict[str, Any]:
    """What `{"error": {...}}` holds; fails the test for any other shape."""
    assert list(body) == ["error"], body
    error = body["error"]
    assert set(error) == {"message", "type", "param", "code"}, body
    assert isinstance(error["message"], str) and error["message"]
    assert isinstance(error["type"], str)
    assert isinstance(error["param"], str | None)
    assert isinstance(error["code"], str | None)
    assert "Traceback" not in error["message"]
    return dict(error)


def anthropic_error_of(body: Any) -> dict[str, Any]:
    """What an error of Anthropic's shape holds; fails the test for any other."""
    assert list(body) == ["type", "error", "request_id"] and body["type"] == "error", body
    assert set(body["error"]) == {"type", "message"}, body
    assert body["error"]["message"] and "Traceback" not in body["error"]["message"]
    return dict(body["error"])


def ollama_error_of(body: Any) -> str:
    """The text of an error of Ollama's shape; fails the test for any other."""
    assert list(body) == ["error"] and isinstance(body["error"], str) and body["error"], body
    return str(body["error"])


def message_at(path: str, body: Any) -> str:
    """What an error says, which must have the shape that its path has."""
    parts = [part for part in path.split("/") if part]
    if parts[:2] == ["v1", "messages"]:
        return str(anthropic_error_of(body)["message"])
    return ollama_error_of(body) if parts[:1] == ["api"] else str(error_of(body)["message"])


def connect(url: str) -> socket.socket:
    parts = urlsplit(url)
    return socket.create_connection((parts.hostname, parts.port), timeout=TIMEOUT_S)


def read_reply(sock: socket.socket) -> Reply:
    """The next response on a connection."""
    response = http.client.HTTPResponse(sock)
    response.begin()
    body = response.read()
    headers = {name.lower(): value for name, value in response.getheaders()}
    response.close()
    return Reply(response.status, headers, body)


def exchange(url: str, data: bytes) -> Reply:
    """Send bytes as they are on a new connection and read the response."""
    with connect(url) as sock:
        sock.sendall(data)
        return read_reply(sock)


def request(
    method: str, path: str, *headers: str, body: bytes = b"", host: str = "localhost"
) -> bytes:
    """A request's bytes; a Host and a Content-Length are added."""
    lines = [f"{method} {path} HTTP/1.1", f"Host: {host}", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body


def post(path: str, body: bytes | dict[str, Any], *headers: str) -> bytes:
    """A JSON request's bytes."""
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return request("POST", path, "Content-Type: application/json", *headers, body=raw)
