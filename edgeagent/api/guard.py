"""What every request passes before any route sees it: an ASGI layer around the whole API.

    1. one Host header, naming this machine (DNS rebinding)
    2. no Origin, or one that is allowed (a web page somebody happens to look at)
    3. a body of JSON, so that no HTML form can make one
    4. a body within its bounds of size and time

Every response gets an `x-request-id`.
"""

from __future__ import annotations

import asyncio
import ipaddress
import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from typing import cast

from litestar.enums import ScopeType
from litestar.types import ASGIApp, HTTPReceiveMessage, Message, Receive, Scope, Send

from edgeagent.api.dialects import ANTHROPIC, dialect_of
from edgeagent.api.errors import encoded
from edgeagent.errors import (
    BadRequest,
    BodyTooLarge,
    EdgeAgentError,
    Forbidden,
    Misdirected,
    UnsupportedMediaType,
)

# A body over the bound is read and thrown away up to this much, so that a client that writes first
# and reads afterwards gets to see why it was refused.
DRAIN_BYTES = 64 << 20
MIN_BODY_BYTES_PER_S = 16 << 10
_ALLOWED_METHODS = b"GET, POST, DELETE, OPTIONS"


@dataclass(frozen=True)
class GuardRules:
    """`hosts` without ports, lower case; `origins` as browsers send them. Sizes in bytes."""

    hosts: frozenset[str]
    is_wildcard: bool
    origins: frozenset[str]
    max_body_bytes: int
    body_timeout_s: float


def rules(
    host: str, allowed_hosts: Iterable[str], allowed_origins: Iterable[str],
    max_body_bytes: int, body_timeout_s: float,
) -> GuardRules:  # fmt: skip
    """Loopback's names and the bound address, beside what the settings allow."""
    names = {
        "localhost",
        "127.0.0.1",
        "::1",
        host.lower(),
        *(name.lower() for name in allowed_hosts),
    }
    return GuardRules(
        hosts=frozenset(names),
        is_wildcard=host in ("0.0.0.0", "::"),
        origins=frozenset(origin.rstrip("/").lower() for origin in allowed_origins),
        max_body_bytes=max_body_bytes,
        body_timeout_s=body_timeout_s,
    )


class Guard:
    """The layer itself. Holds no state of a request."""

    def __init__(self, app: ASGIApp, rules: GuardRules) -> None:
        self._app = app
        self._rules = rules

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != ScopeType.HTTP:
            await self._app(scope, receive, send)
            return
        name = request_id()
        extra = [name]
        if dialect_of(scope["path"]) is ANTHROPIC:
            extra.append((b"request-id", name[1]))  # where its SDK looks
        scope.setdefault("state", {})["request_id"] = name[1].decode()
        sender = _with_headers(send, extra)
        headers = scope["headers"]
        try:
            check_host(headers, self._rules)
            origin = check_origin(headers, self._rules)
            if origin is not None:
                extra += [(b"access-control-allow-origin", origin), (b"vary", b"Origin")]
                if scope["method"] == "OPTIONS":
                    await _preflight(headers, sender)
                    return
            length = content_length(headers)
            has_body = length or any(name == b"transfer-encoding" for name, _ in headers)
            if has_body or (length is None and scope["method"] in ("PUT", "PATCH")):
                check_content_type(headers)
            bounded = _BoundedBody(receive, self._rules, length)
            if length is not None and length > self._rules.max_body_bytes:
                await bounded.drain()
                raise _too_large(length, self._rules)
        except EdgeAgentError as exc:
            await _answer_error(exc, scope, sender)
            return
        await self._app(scope, bounded, sender)


def request_id() -> tuple[bytes, bytes]:
    """The header by which a client names a request when it complains."""
    return b"x-request-id", f"req_{secrets.token_hex(12)}".encode()


def check_host(headers: Iterable[tuple[bytes, bytes]], rules: GuardRules) -> None:
    """Raises: BadRequest without exactly one Host, Misdirected when it is not this machine's."""
    values = [value for name, value in headers if name == b"host"]
    if len(values) != 1:
        raise BadRequest(f"The request has {len(values)} Host headers, exactly one is needed.")
    name = host_name(values[0])
    if name is None or not (name in rules.hosts or (rules.is_wildcard and _is_address(name))):
        raise Misdirected(
            f"Host {values[0].decode('latin-1')[:100]!r} is not a name of this server: use its address, "
            "or add the name to allowed_hosts."
        )


def host_name(value: bytes) -> str | None:
    """The name or address in a Host header, without port and brackets; None if it is malformed."""
    text = value.decode("latin-1").strip().lower()
    if text.startswith("["):
        name, bracket, rest = text[1:].partition("]")
        is_good = bool(bracket) and _is_address(name)
    else:
        name, colon, digits = text.partition(":")
        rest = colon + digits
        is_good = bool(name) and not set(name) & set("@/\\?#%[]")
    port = rest[1:]
    if not is_good or (rest and not (rest[0] == ":" and port.isascii() and port.isdigit())):
        return None
    return name


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def check_origin(headers: Iterable[tuple[bytes, bytes]], rules: GuardRules) -> bytes | None:
    """The Origin, if there is one. Raises: Forbidden when it is neither ours nor allowed."""
    values = [value for name, value in headers if name == b"origin"]
    if not values:
        return None
    text = values[0].decode("latin-1").rstrip("/").lower()
    host = next(value for name, value in headers if name == b"host").decode("latin-1").lower()
    is_own = text in (f"http://{host}", f"https://{host}")
    if len(values) == 1 and (is_own or text in rules.origins):
        return values[0]
    raise Forbidden(
        f"Origin {text[:100]!r} may not call this server from a browser: add it to allowed_origins."
    )


def check_content_type(headers: Iterable[tuple[bytes, bytes]]) -> None:
    """Raises: UnsupportedMediaType unless the body is JSON; a body there must be."""
    values = [value for name, value in headers if name == b"content-type"]
    kind = values[0].split(b";")[0].strip().lower() if len(values) == 1 else b""
    if kind != b"application/json":
        shown = values[0].decode("latin-1")[:80] if values else "missing"
        raise UnsupportedMediaType(
            f"Content-Type is {shown!r}, application/json is needed: with curl, add "
            "-H 'Content-Type: application/json'."
        )


def content_length(headers: Iterable[tuple[bytes, bytes]]) -> int | None:
    """The announced size of the body in bytes; None when it comes in chunks."""
    for name, value in headers:
        if name == b"content-length":
            return int(value)
    return None


def _too_large(n_bytes: int, rules: GuardRules) -> BodyTooLarge:
    return BodyTooLarge(
        f"The body has {n_bytes} bytes or more, the bound is {rules.max_body_bytes}: send less, or raise "
        "max_body_bytes."
    )


class _BoundedBody:
    """`receive` with a bound on size, and a clock that runs until the body is complete."""

    def __init__(self, receive: Receive, rules: GuardRules, length: int | None) -> None:
        self._receive = receive
        self._rules = rules
        self._n_bytes = 0
        self._is_complete = length == 0
        self._deadline = asyncio.get_running_loop().time() + rules.body_timeout_s

    async def __call__(self) -> HTTPReceiveMessage:
        if self._is_complete:
            return cast(HTTPReceiveMessage, await self._receive())
        message = await self._next()
        if self._n_bytes > self._rules.max_body_bytes:
            await self.drain()
            raise _too_large(self._n_bytes, self._rules)
        return message

    async def _next(self) -> HTTPReceiveMessage:
        # Each byte that comes buys time: slow is allowed, a trickle is not.
        grace = self._n_bytes / MIN_BODY_BYTES_PER_S
        try:
            async with asyncio.timeout_at(self._deadline + grace):
                message = cast(HTTPReceiveMessage, await self._receive())
        except TimeoutError:
            raise BadRequest(
                f"The body was not complete after {self._rules.body_timeout_s:g} s: send it faster."
            ) from None
        if message["type"] == "http.request":
            self._n_bytes += len(message.get("body", b""))
            self._is_complete = not message.get("more_body", False)
        else:
            self._is_complete = True
        return message

    async def drain(self) -> None:
        """Throw away what still comes of the body, within bounds."""
        while not self._is_complete and self._n_bytes < DRAIN_BYTES:
            await self._next()


def _with_headers(send: Send, extra: list[tuple[bytes, bytes]]) -> Send:
    async def sender(message: Message) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = [*message.get("headers", []), *extra]
        await send(message)

    return sender


async def _preflight(headers: Iterable[tuple[bytes, bytes]], send: Send) -> None:
    """Any header may be sent from an allowed origin: SDKs add their own."""
    asked = next((v for name, v in headers if name == b"access-control-request-headers"), b"*")
    await send(
        {
            "type": "http.response.start",
            "status": 204,
            "headers": [
                (b"access-control-allow-methods", _ALLOWED_METHODS),
                (b"access-control-allow-headers", asked),
                (b"access-control-max-age", b"600"),
            ],
        }
    )
    await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _answer_error(error: EdgeAgentError, scope: Scope, send: Send) -> None:
    status, headers, body = encoded(error, scope)
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body, "more_body": False})
