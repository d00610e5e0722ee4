"""Sends what is answered in one piece, and cancels the work when the client leaves."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import msgspec
from litestar.types import Receive, Scope, Send

from edgeagent.api.http.disconnect import run_until_gone
from edgeagent.api.http.errors import encoded, status_of, translate
from edgeagent.api.http.request_context import context_of
from edgeagent.api.http.shutdown import shutting_down
from edgeagent.errors import EdgeAgentError
from edgeagent.serving.one_shot_request import OneShotRequest
from edgeagent.types.unary_requests import Vectors

# Encoding that many bytes takes longer than the event loop should stand still.
MUCH_BYTES = 256 << 10

Whole = tuple[int, list[tuple[bytes, bytes]], bytes]  # status, headers, body


class OneShotResponse:
    """An ASGI response around one request; `encode` makes the JSON body of its result."""

    def __init__(self, request: OneShotRequest, encode: Callable[[Any], bytes]) -> None:
        self._request = request
        self._encode = encode
        self._response: Whole | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        context = context_of(scope)
        try:
            ending = await run_until_gone(
                self._produce(scope), receive, name="one-shot", shutdown=context.shutdown
            )
            if ending == "stopping":
                self._response = self._failed(shutting_down(), scope)
            if ending != "gone" and self._response is not None:
                context.charge(self._request.n_tokens)
                await send_whole(send, *self._response)
        finally:
            # However this ended, the request holds nothing when the response is over.
            self._request.release()
            context.charge(self._request.n_tokens)

    async def _produce(self, scope: Scope) -> None:
        try:
            value = await self._request.result()
            if isinstance(value, Vectors) and len(value.data) > MUCH_BYTES:
                body = await asyncio.to_thread(self._encode, value)
            else:
                body = self._encode(value)
            self._response = whole_json(body)
        except Exception as exc:
            self._response = self._failed(translate(exc), scope)

    def _failed(self, error: EdgeAgentError, scope: Scope) -> Whole:
        self._request.record.status = status_of(error)
        return encoded(error, scope)


class JsonResponse:
    """An ASGI response with an object."""

    def __init__(self, value: Any, status: int = 200) -> None:
        self._value = value
        self._status = status

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        _, headers, body = whole_json(msgspec.json.encode(self._value))
        await send_whole(send, self._status, headers, body)


def whole_json(body: bytes) -> Whole:
    """A successful response with a JSON body."""
    length = (b"content-length", str(len(body)).encode())
    return 200, [(b"content-type", b"application/json"), length], body


async def send_whole(
    send: Send, status: int, headers: list[tuple[bytes, bytes]], body: bytes
) -> None:
    """Send a response in one piece."""
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body, "more_body": False})
