"""The first checks of every request: an ASGI layer around the whole API.

    1. one Host header that names this machine (DNS rebinding), and the same for an absolute target; it may
       be missing in HTTP/1.0 from this machine, to a daemon that only this machine reaches
    2. no Origin, or an allowed one (web pages)
    3. a body of JSON, so that HTML forms cannot make requests, in a supported encoding; an upload is a
       form, from no page that is not allowed, or a part of a file (`uploads.py`)
    4. an announced size within the limit; a larger body is not read

Every response gets an `x-request-id`. HEAD is answered like GET, without the body. A response that comes
before the body of its request closes the connection.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import secrets
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, cast
from urllib.parse import unquote

from litestar.types import ASGIApp, HTTPScope, Message, Receive, Scope, Send

from edgeagent.api.http.body_memory import too_large
from edgeagent.api.http.body_slices import body_slices
from edgeagent.api.http.csrf import check_site, may_be_untyped
from edgeagent.api.http.dialects import ANTHROPIC, dialect_of
from edgeagent.api.http.encodings import encoding_of
from edgeagent.api.http.errors import encoded
from edgeagent.api.http.request_context import context_of
from edgeagent.api.http.route_paths import Paths
from edgeagent.api.http.shutdown import shutting_down
from edgeagent.api.http.uploads import Uploads, check_form, check_part
from edgeagent.errors import (
    BadRequest,
    EdgeAgentError,
    Forbidden,
    Misdirected,
    UnsupportedMediaType,
)
from edgeagent.settings.http import HttpSettings
from edgeagent.types.loopback import is_loopback

logger = logging.getLogger(__name__)

_ALLOWED_METHODS = b"GET, HEAD, POST, PATCH, DELETE, OPTIONS"


@dataclass(frozen=True)
class GuardRules:
    """`hosts` without ports, in lower case; `origins` as browsers send them; sizes in bytes. `is_local`:
    only this machine reaches the daemon."""

    hosts: frozenset[str]
    is_wildcard: bool
    origins: frozenset[str]
    max_body_bytes: int
    is_local: bool
    uploads: Uploads = field(default_factory=lambda: Uploads({}))


def rules(settings: HttpSettings, *, is_local: bool, uploads: Uploads | None = None) -> GuardRules:
    """The rules for the names of loopback, the bound address, and what the settings allow."""
    names = {
        "localhost",
        "127.0.0.1",
        "::1",
        settings.host.lower(),
        *(name.lower() for name in settings.allowed_hosts),
    }
    return GuardRules(
        hosts=frozenset(names),
        is_wildcard=settings.host in ("0.0.0.0", "::"),
        origins=frozenset(origin.rstrip("/").lower() for origin in settings.allowed_origins),
        max_body_bytes=settings.max_body_bytes,
        is_local=is_local,
        uploads=uploads or Uploads({}),
    )


class RequestGuard:
    """The layer. Holds no state of a request."""

    def __init__(self, app: ASGIApp, rules: GuardRules, paths: Paths) -> None:
        self._app = app
        self._rules = rules
        self._paths = paths

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        kind: str = scope["type"]
        if kind == "websocket":
            await self._open_socket(scope, receive, send)
        elif kind == "http":
            await self._answer(cast(HTTPScope, scope), receive, send)
        else:
            await self._app(scope, receive, send)

    async def _open_socket(self, scope: Scope, receive: Receive, send: Send) -> None:
        """A browser lets any page open one: the Origin is checked for it as for every request."""
        from edgeagent.api.http.websocket import refuse_socket

        name = request_id()
        context_of(scope).request_id = name[1].decode()
        http = cast(HTTPScope, scope)
        try:
            check_host(http, self._rules, to_origin_form(http))
            check_origin(scope["headers"], self._rules)
        except EdgeAgentError as exc:
            await refuse_socket(exc, scope, send, [name])
            return
        await self._app(scope, receive, send)

    async def _answer(self, scope: HTTPScope, receive: Receive, send: Send) -> None:
        name = request_id()
        context = context_of(scope)
        context.request_id = name[1].decode()
        authority = to_origin_form(scope)
        extra = [name]
        if dialect_of(scope["path"]) is ANTHROPIC:
            extra.append((b"request-id", name[1]))  # the header that its SDK reads
        response = _Response(send, extra, context.connection, is_head=scope["method"] == "HEAD")
        if response.is_head:
            # A copy, since the server needs the method that the client sent.
            scope = cast(HTTPScope, {**scope, "method": "GET"})
        try:
            check_host(scope, self._rules, authority)
            origin = check_origin(scope["headers"], self._rules)
            if origin is not None:
                extra += [(b"access-control-allow-origin", origin), (b"vary", b"Origin")]
                if scope["method"] == "OPTIONS":
                    await _preflight(scope["headers"], response)
                    return
            check_site(scope["method"], scope["headers"], origin)
            self._check_body(scope, origin)
        except EdgeAgentError as exc:
            await _answer_error(exc, scope, response)
            return
        try:
            await self._app(scope, receive, response)
        except asyncio.CancelledError:
            if not context.shutdown.has_begun:
                raise
            # The server is stopping and has cancelled the request: no reason for a traceback.
            if not response.is_started:
                await _answer_error(shutting_down(), scope, response)
            logger.info("answer_cut_off request=%s", context.request_id)

    def _check_body(self, scope: HTTPScope, origin: bytes | None) -> None:
        """Check a body by its headers. For an unknown path api/http/auth.py answers.

        Raises: UnsupportedMediaType, UnsupportedEncoding, BodyTooLarge.
        """
        headers = scope["headers"]
        length = content_length(headers)
        has_body = length or any(name == b"transfer-encoding" for name, _ in headers)
        may_have_body = has_body or (length is None and scope["method"] in ("PUT", "PATCH"))
        most = self._rules.uploads.max_bytes(scope["path"])
        if may_have_body and self._paths.is_there(scope["method"], scope["path"]):
            if most is not None:
                check_form(headers, origin)
            elif self._rules.uploads.takes_parts(scope["method"], scope["path"]):
                check_part(headers)
            elif not may_be_untyped(scope, origin):
                check_content_type(headers)
            encoding_of(headers)
        most = most or self._rules.max_body_bytes
        if length is not None and length > most:
            raise too_large(length, most)


class _Response:
    """`send` of one request, with the headers that every response has."""

    def __init__(
        self, send: Send, headers: list[tuple[bytes, bytes]], connection: Any, *, is_head: bool
    ) -> None:
        self._send = send
        self._headers = headers
        self._connection = connection
        self.is_head = is_head
        self.is_started = False
        self._is_over = False

    async def __call__(self, message: Message) -> None:
        if self._is_over:
            return
        if message["type"] == "http.response.start":
            self.is_started = True
            own = self._headers
            if self._connection is not None and self._connection.leaves_body:
                own = [*own, (b"connection", b"close")]
            message["headers"] = [*message.get("headers", []), *own]
            await self._send(message)
            if self.is_head:
                # This ends the response; a stream sees its client leave.
                self._is_over = True
                await self._send({"type": "http.response.body", "body": b"", "more_body": False})
        elif message["type"] == "http.response.body":
            is_last = not message.get("more_body", False)
            for part, has_more in body_slices(message.get("body", b"")):
                more = has_more or not is_last
                await self._send({"type": "http.response.body", "body": part, "more_body": more})
        else:
            await self._send(message)


def to_origin_form(scope: HTTPScope) -> bytes | None:
    """Rewrite a target in absolute form, `http://host/path`, to its path. Gives its authority, if it had
    one."""
    # The raw path, since decoding may create slashes.
    scheme, separator, rest = scope["raw_path"].partition(b"://")
    if scheme.lower() not in (b"http", b"https") or not separator:
        return None
    authority, _, path = rest.partition(b"/")
    scope["raw_path"] = b"/" + path
    scope["path"] = unquote(scope["raw_path"].decode("ascii", "replace"))
    return authority


def request_id() -> tuple[bytes, bytes]:
    """The header with the id of a request."""
    return b"x-request-id", f"req_{secrets.token_hex(12)}".encode()


def check_host(scope: HTTPScope, rules: GuardRules, authority: bytes | None = None) -> None:
    """`authority` is that of an absolute target. Raises: BadRequest without exactly one Host; Misdirected
    for a name that is not this machine's."""
    values = [value for name, value in scope["headers"] if name == b"host"]
    if not values and _needs_no_host(scope, rules):
        pass
    elif len(values) != 1:
        raise BadRequest(f"The request has {len(values)} Host headers, exactly one is needed.")
    for value in values if authority is None else [authority, *values]:
        name = host_name(value)
        if name is None or not (name in rules.hosts or (rules.is_wildcard and _is_address(name))):
            raise Misdirected(
                f"Host {value.decode('latin-1')[:100]!r} is not a name of this server: use its address, "
                "or add the name to allowed_hosts."
            )


def _needs_no_host(scope: HTTPScope, rules: GuardRules) -> bool:
    """HTTP/1.0 has no Host. DNS rebinding needs a browser, and browsers send HTTP/1.1 or later."""
    client = scope["client"]
    is_near = client is None or is_loopback(client[0])
    return scope["http_version"] == "1.0" and rules.is_local and is_near


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
    return name if is_good and (not rest or _is_port(rest)) else None


def _is_port(rest: str) -> bool:
    """Whether this is a colon and a number that a port can have."""
    digits = rest[1:]
    # The length first: Python refuses to read thousands of digits.
    is_number = rest[0] == ":" and digits.isascii() and digits.isdigit() and len(digits) <= 5
    return is_number and int(digits) <= 65535


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def check_origin(headers: Iterable[tuple[bytes, bytes]], rules: GuardRules) -> bytes | None:
    """The Origin, if there is one. Raises: Forbidden unless it is ours or allowed."""
    values = [value for name, value in headers if name == b"origin"]
    if not values:
        return None
    text = values[0].decode("latin-1").rstrip("/").lower()
    host = (
        next((value for name, value in headers if name == b"host"), b"").decode("latin-1").lower()
    )
    is_own = bool(host) and text in (f"http://{host}", f"https://{host}")
    if len(values) == 1 and (is_own or text in rules.origins):
        return values[0]
    raise Forbidden(
        f"Origin {text[:100]!r} may not call this server from a browser: add it to allowed_origins."
    )


def check_content_type(headers: Iterable[tuple[bytes, bytes]]) -> None:
    """For a request with a body. Raises: UnsupportedMediaType unless it is JSON."""
    values = [value for name, value in headers if name == b"content-type"]
    kind = values[0].split(b";")[0].strip().lower() if len(values) == 1 else b""
    if kind != b"application/json":
        shown = values[0].decode("latin-1")[:80] if values else "missing"
        raise UnsupportedMediaType(
            f"Content-Type is {shown!r}, application/json is needed: with curl, add "
            "-H 'Content-Type: application/json'."
        )


def content_length(headers: Iterable[tuple[bytes, bytes]]) -> int | None:
    """The announced size of the body in bytes; None for a chunked body."""
    for name, value in headers:
        if name == b"content-length":
            return int(value)
    return None


async def _preflight(headers: Iterable[tuple[bytes, bytes]], send: Send) -> None:
    """Allow any header from an allowed origin, since SDKs add their own."""
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
