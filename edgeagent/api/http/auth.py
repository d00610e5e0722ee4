"""Authentication and authorization: an ASGI layer between host_and_origin.py and the routes.

    1. the rule of the path (access.py); a path without a rule is not answered
    2. the caller, by `Authorization: Bearer` or `x-api-key`, of a WebSocket also by subprotocol; on loopback
       without keys, the local owner
    3. the scope that the rule names, and whether there is such a path
    4. the limits of the key (key_limits.py); the admission ends with the response
    5. the whole body (body_memory.py), of which nothing has been read before

Routes find the results in the request's context (request_context.py).
"""

from __future__ import annotations

import logging
from typing import Any, cast

from litestar.types import ASGIApp, HTTPScope, Message, Receive, Scope, Send

from edgeagent.api.http.body_memory import Bodies
from edgeagent.api.http.encodings import encoding_of
from edgeagent.api.http.errors import encoded, no_such_method, nothing_here, status_of, translate
from edgeagent.api.http.key_limits import Admission, FailureThrottle, Limiter
from edgeagent.api.http.path_scopes import Need, is_known, need_of
from edgeagent.api.http.request_context import context_of
from edgeagent.api.http.route_paths import Paths
from edgeagent.api.http.uploads import Uploads
from edgeagent.errors import EdgeAgentError, InsufficientScope, Unauthorized
from edgeagent.serving.authentication import Authenticator
from edgeagent.types.caller import Caller

logger = logging.getLogger(__name__)

NO_KEY = (
    "This request has no API key: send `Authorization: Bearer ea_...`; on the device, `edgeagent keys "
    "create` makes one."
)
# The same text for unknown, expired and revoked keys gives no hint to an attacker.
BAD_KEY = (
    "This API key is not valid here, it is unknown, expired or revoked: check what was sent, or look "
    "at `edgeagent keys list` on the device."
)

KEY_PROTOCOL = "openai-insecure-api-key."


class Authentication:
    """The layer. Event loop's thread only."""

    def __init__(
        self,
        app: ASGIApp,
        authenticator: Authenticator,
        limiter: Limiter,
        throttle: FailureThrottle,
        bodies: Bodies,
        paths: Paths,
        *,
        uploads: Uploads | None = None,
    ) -> None:
        self._uploads = uploads or Uploads({})
        self._app = app
        self._authenticator = authenticator
        self._limiter = limiter
        self._throttle = throttle
        self._bodies = bodies
        self._paths = paths

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        kind: str = scope["type"]
        if kind == "websocket":
            await self._open_socket(scope, receive, send)
            return
        http = cast(HTTPScope, scope)
        if kind == "lifespan" or need_of(http["method"], http["path"]) == "open":
            await self._app(scope, receive, send)
            return
        extra: list[tuple[bytes, bytes]] = []
        caller: Caller | None = None
        try:
            caller = await self._admitted(http)
            if _is_bounded(caller):
                extra = self._limiter.headers(caller)
            admission = self._limiter.admit(caller)
        except Exception as exc:
            error = translate(exc)
            if caller is None and status_of(error) == 429:
                extra.append(
                    (b"connection", b"close")
                )  # requests pipelined behind it are not answered
            if status_of(error) == 405:
                extra.append(self._allow(http["path"]))
            await _refuse(error, extra, http, send)
            return
        try:
            await self._with_body(http, caller, admission, receive, send)
        finally:
            admission.release()

    async def _open_socket(self, scope: Scope, receive: Receive, send: Send) -> None:
        """As for a request; the admission ends with the connection."""
        from edgeagent.api.http.websocket import refuse_socket

        request = cast(HTTPScope, {**scope, "method": "GET"})
        try:
            caller = await self._admitted(request)
            admission = self._limiter.admit(caller)
        except Exception as exc:
            await refuse_socket(translate(exc), scope, send)
            return
        try:
            context = context_of(scope)
            context.caller, context.admission = caller, admission
            await self._app(scope, receive, send)
        finally:
            admission.release()

    def _allow(self, path: str) -> tuple[bytes, bytes]:
        """The header with the methods of a path. Litestar's own leaves out HEAD."""
        methods = {*self._paths.methods(path)}
        if "GET" in methods:
            methods.add("HEAD")
        return b"allow", ", ".join(sorted(methods)).encode()

    async def _with_body(
        self, scope: HTTPScope, caller: Caller, admission: Admission, receive: Receive, send: Send
    ) -> None:
        context = context_of(scope)
        if context.connection is not None:
            context.connection.is_known = True
        headers = scope["headers"]
        try:
            most = self._uploads.max_bytes(scope["path"])
            body = await self._bodies.read(receive, caller.key_id, encoding_of(headers), most)
        except EdgeAgentError as exc:
            await _refuse(exc, admission.headers(), scope, send)
            return
        extra = admission.headers()
        if scope["method"] == "OPTIONS":
            extra = [*extra, self._allow(scope["path"])]
        try:
            context.caller, context.admission, context.body = caller, admission, body
            await self._app(
                scope, body.receive(receive), _with_headers(_releasing(send, admission), extra)
            )
        finally:
            body.close()

    async def _admitted(self, scope: HTTPScope) -> Caller:
        """The caller of a request that its rule allows. Raises: Unauthorized, InsufficientScope, NotFound,
        RateLimited, and what the store raises."""
        try:
            caller = self._caller(scope)
        except Unauthorized:
            client = scope.get("client")
            peer = client[0] if client else ""
            self._throttle.fail(peer)
            logger.warning("unauthorized peer=%s", peer)
            raise
        if caller.is_break_glass:
            what = f"{scope['method']} {scope['path'][:200]}"
            logger.warning("break_glass_used key=%s request='%s'", caller.key_id, what)
            # Written before the answer: a use that cannot be audited is refused.
            await self._authenticator.note_break_glass(caller, what)
        check_need(need_of(scope["method"], scope["path"]), caller, scope["path"])
        self._paths.check(scope["method"], scope["path"])
        return caller

    def _caller(self, scope: HTTPScope) -> Caller:
        secret = secret_of(scope["headers"])
        if secret is None:
            secret = subprotocol_secret(scope)
        caller = self._authenticator.caller(secret)
        if caller is None:
            raise Unauthorized(NO_KEY if secret is None else BAD_KEY)
        return caller


def secret_of(headers: Any) -> str | None:
    """The key in a request; None without one. Two different keys count as an empty one."""
    found = bearer(headers)
    keys = {value.decode("latin-1").strip() for name, value in headers if name == b"x-api-key"}
    if found is not None:
        keys.add(found)
    return (keys.pop() if len(keys) == 1 else "") if keys else None


def subprotocol_secret(scope: HTTPScope) -> str | None:
    """The key in the subprotocols of a WebSocket, where browsers can put it; they cannot send headers."""
    offered = cast(dict[str, Any], scope).get("subprotocols", ())
    keys = [name.removeprefix(KEY_PROTOCOL) for name in offered if name.startswith(KEY_PROTOCOL)]
    return (keys[0] if len(keys) == 1 else "") if keys else None


def bearer(headers: Any) -> str | None:
    """The token of a single Authorization header; None without a header. Another scheme counts as an empty
    token."""
    values = [value for name, value in headers if name == b"authorization"]
    if not values:
        return None
    scheme, _, token = values[0].decode("latin-1").partition(" ")
    is_bearer = len(values) == 1 and scheme.lower() == "bearer"
    return token.strip() if is_bearer else ""


def check_need(need: Need | None, caller: Caller, path: str) -> None:
    """Raises: InsufficientScope; NotFound and MethodNotAllowed where no rule matches."""
    if need is None:
        raise no_such_method() if is_known(path) else nothing_here()
    if caller.limits.bot is not None and need != "bot":  # it lies in the source of web pages
        raise InsufficientScope(
            "This key is for the pages of a bot, which is all that it may talk to: use another key."
        )
    if need not in ("open", "any key") and need not in caller.scopes:
        raise InsufficientScope(
            f"This key has the scopes {', '.join(sorted(caller.scopes))}, this request needs `{need}`: "
            "use a key that has it.",
        )


def _is_bounded(caller: Caller) -> bool:
    limits = caller.limits
    return limits.requests_per_minute is not None or limits.tokens_per_minute is not None


def _releasing(send: Send, admission: Admission) -> Send:
    """End the admission before the last byte is sent: the client's next request may follow at once."""

    async def sending(message: Message) -> None:
        if message["type"] == "http.response.body" and not message.get("more_body"):
            admission.release()
        await send(message)

    return sending


def _with_headers(send: Send, extra: list[tuple[bytes, bytes]]) -> Send:
    if not extra:
        return send

    async def sender(message: Message) -> None:
        if message["type"] == "http.response.start":
            own = {name for name, _ in extra}
            others = [
                header for header in message.get("headers", []) if header[0].lower() not in own
            ]
            message["headers"] = [*others, *extra]
        await send(message)

    return sender


async def _refuse(
    error: EdgeAgentError, extra: list[tuple[bytes, bytes]], scope: HTTPScope, send: Send
) -> None:
    status, headers, body = encoded(error, scope)
    await send({"type": "http.response.start", "status": status, "headers": [*headers, *extra]})
    await send({"type": "http.response.body", "body": body, "more_body": False})
