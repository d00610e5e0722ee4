"""`GET /metrics` for Prometheus, and the layer that counts refused requests."""

from __future__ import annotations

from litestar import Response, get
from litestar.types import ASGIApp, Receive, Scope, Send

from edgeagent.api.http.request_context import context_of
from edgeagent.serving.monitoring import Monitoring


@get(
    "/metrics",
    operation_id="metrics",
    summary="Counts and times for Prometheus",
    description="In vLLM's terms, with the prefix `edgeagent:`. A key needs the scope `metrics`.",
    tags=["system"],
    media_type="text/plain",
)
async def metrics(monitoring: Monitoring) -> Response[bytes]:
    return Response(await monitoring.text(), headers={"content-type": monitoring.content_type})


class RefusalCounter:
    """The outermost ASGI layer: counts requests that were answered with an error, by its code."""

    def __init__(self, app: ASGIApp, monitoring: Monitoring) -> None:
        self._app = app
        self._monitoring = monitoring

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await self._app(scope, receive, send)
        finally:
            error = context_of(scope).error if scope["type"] == "http" else None  # type: ignore[comparison-overlap]
            if error is not None:
                self._monitoring.refuse(error)
