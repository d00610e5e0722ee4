"""Sends what is answered in one piece, and gives up the work when the client leaves."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from litestar.types import Receive, Scope, Send

from edgeagent.api.http.errors import encoded, status_of, translate
from edgeagent.api.http.shutdown import shutdown_of, shutting_down
from edgeagent.api.http.stream import client_gone
from edgeagent.errors import EdgeAgentError
from edgeagent.serving.one_shot import OneShotRequest
from edgeagent.types.questions import Vectors

# Encoding that many bytes takes longer than the event loop should stand still.
MUCH_BYTES = 256 << 10


class OneShotResponse:
    """An ASGI response around one call; `encode` makes its JSON body of the result."""

    def __init__(self, call: OneShotRequest, encode: Callable[[Any], bytes]) -> None:
        self._call = call
        self._encode = encode

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        produce = asyncio.create_task(self._produce(scope), name="call")
        gone = asyncio.create_task(client_gone(receive), name="call-watch")
        stop = asyncio.create_task(shutdown_of(scope).begun(), name="call-stop")
        try:
            await asyncio.wait({produce, gone, stop}, return_when=asyncio.FIRST_COMPLETED)
            if not gone.done():
                if produce.done():
                    status, headers, body = produce.result()
                else:
                    status, headers, body = self._failed(shutting_down(), scope)
                await send({"type": "http.response.start", "status": status, "headers": headers})
                await send({"type": "http.response.body", "body": body, "more_body": False})
        finally:
            for task in (produce, gone, stop):
                task.cancel()
            # However this ended, what the call holds is given back before the response is over.
            await asyncio.gather(produce, gone, stop, return_exceptions=True)
            self._call.release()
            scope["state"]["charge"](self._call.n_tokens)

    async def _produce(self, scope: Scope) -> tuple[int, list[tuple[bytes, bytes]], bytes]:
        try:
            value = await self._call.result()
            if isinstance(value, Vectors) and len(value.data) > MUCH_BYTES:
                body = await asyncio.to_thread(self._encode, value)
            else:
                body = self._encode(value)
        except Exception as exc:
            return self._failed(translate(exc), scope)
        length = (b"content-length", str(len(body)).encode())
        return 200, [(b"content-type", b"application/json"), length], body

    def _failed(
        self, error: EdgeAgentError, scope: Scope
    ) -> tuple[int, list[tuple[bytes, bytes]], bytes]:
        self._call.status = status_of(error)
        return encoded(error, scope)
