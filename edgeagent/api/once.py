"""Sends what is answered in one piece, and gives up the work when the client leaves."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from litestar.types import Receive, Scope, Send

from edgeagent.api.errors import encoded, status_of, translate
from edgeagent.api.stream import client_gone
from edgeagent.calls import Call
from edgeagent.types import Vectors

# Encoding that many bytes takes longer than the event loop should stand still.
MUCH_BYTES = 256 << 10


class OnceResponse:
    """An ASGI response around one call; `encode` makes its JSON body of the result."""

    def __init__(self, call: Call, encode: Callable[[Any], bytes]) -> None:
        self._call = call
        self._encode = encode

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        produce = asyncio.create_task(self._produce(scope), name="call")
        gone = asyncio.create_task(client_gone(receive), name="call-watch")
        try:
            await asyncio.wait({produce, gone}, return_when=asyncio.FIRST_COMPLETED)
            if produce.done():
                status, headers, body = produce.result()
                await send({"type": "http.response.start", "status": status, "headers": headers})
                await send({"type": "http.response.body", "body": body, "more_body": False})
        finally:
            produce.cancel()
            gone.cancel()
            # However this ended, what the call holds is given back before the response is over.
            await asyncio.gather(produce, gone, return_exceptions=True)
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
            error = translate(exc)
            self._call.status = status_of(error)
            return encoded(error, scope)
        length = (b"content-length", str(len(body)).encode())
        return 200, [(b"content-type", b"application/json"), length], body
