"""The header `x-edgeagent-degraded`: why answers are slower than usual at the moment."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from litestar.types import ASGIApp, HTTPSendMessage, Receive, Scope, Send

from edgeagent.types.throttle import Reason

HEADER = b"x-edgeagent-degraded"


class Degradation:
    """An ASGI layer. Event loop's thread only. `reasons` are those of the moment; without any there is no
    header."""

    def __init__(self, app: ASGIApp, reasons: Callable[[], Sequence[Reason]]) -> None:
        self._app = app
        self._reasons = reasons

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        kind: str = scope["type"]
        if kind != "http":
            await self._app(scope, receive, send)
            return

        async def send_with_reasons(message: HTTPSendMessage) -> None:
            if message["type"] == "http.response.start" and (reasons := self._reasons()):
                message["headers"] = [*message["headers"], (HEADER, ",".join(reasons).encode())]
            await send(message)

        await self._app(scope, receive, send_with_reasons)  # type: ignore[arg-type]
