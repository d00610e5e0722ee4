"""Requests that the daemon makes of itself for a client that does not wait: the lines of batches.

They reach the same routes as those that come by HTTP, behind the layers: the caller is known, and its scope
and its limits are checked here.
"""

from __future__ import annotations

import asyncio
from typing import Any

from litestar.types import ASGIApp

from edgeagent.api.http.auth import check_need
from edgeagent.api.http.body_memory import Bodies
from edgeagent.api.http.errors import encoded, translate
from edgeagent.api.http.key_limits import Limiter
from edgeagent.api.http.path_scopes import need_of
from edgeagent.api.http.request_context import RequestContext, context_of
from edgeagent.serving.batch_runner import CallAnswer
from edgeagent.types.caller import Caller
from edgeagent.types.ids import new_id

_HEADERS = [(b"host", b"127.0.0.1"), (b"content-type", b"application/json")]


class InternalCalls:
    """Event loop's thread only. Cancelling a call cancels its work."""

    def __init__(self, app: ASGIApp, limiter: Limiter, bodies: Bodies) -> None:
        self._app = app
        self._limiter = limiter
        self._bodies = bodies

    async def post(self, caller: Caller, path: str, body: bytes) -> CallAnswer:
        """The answer of a path to a JSON body, be it an error."""
        scope = _scope(path)
        context = context_of(scope)
        context.request_id = new_id("req")
        answer = _Collector()
        try:
            check_need(need_of("POST", path), caller, path)
            admission = self._limiter.admit_batch(caller)
            read = await self._bodies.read(_Source(body), caller.key_id)
        except Exception as exc:
            answer.status, answer.headers, answer.body = encoded(translate(exc), scope)
            return answer.answer(context)
        try:
            context.caller, context.admission, context.body = caller, admission, read
            await self._app(scope, read.receive(_never), answer)
        finally:
            read.close()
            admission.release()
        return answer.answer(context)


class _Source:
    """`receive` with a whole body."""

    def __init__(self, body: bytes) -> None:
        self._body = body

    async def __call__(self) -> Any:
        return {"type": "http.request", "body": self._body, "more_body": False}


class _Collector:
    """`send` that keeps the response."""

    def __init__(self) -> None:
        self.status = 500
        self.headers: list[tuple[bytes, bytes]] = []
        self.body: bytes = b""

    async def __call__(self, message: Any) -> None:
        if message["type"] == "http.response.start":
            self.status, self.headers = message["status"], list(message["headers"])
        elif message["type"] == "http.response.body":
            self.body += message["body"]

    def answer(self, context: RequestContext) -> CallAnswer:
        request_id, code = context.request_id, context.error.code if context.error else None
        wait = next((value for name, value in self.headers if name == b"retry-after"), None)
        retry_after_s = float(wait) if wait is not None else None
        return CallAnswer(self.status, request_id, self.body, retry_after_s, code)


async def _never() -> Any:
    """`receive` of a client that never leaves."""
    await asyncio.Event().wait()


def _scope(path: str) -> Any:
    return {
        "type": "http", "asgi": {"version": "3.0", "spec_version": "2.3"}, "http_version": "1.1",
        "method": "POST", "scheme": "http", "path": path, "raw_path": path.encode(), "query_string": b"",
        "root_path": "", "headers": list(_HEADERS), "client": ("127.0.0.1", 0), "server": ("127.0.0.1", 0),
        "state": {}, "extensions": {},
    }  # fmt: skip
