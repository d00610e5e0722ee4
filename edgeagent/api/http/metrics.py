"""`GET /metrics` for Prometheus, and the layer that counts refused requests."""

from __future__ import annotations

from typing import Literal

from litestar import Response, get
from litestar.types import ASGIApp, Receive, Scope, Send
from pydantic import ConfigDict, Field

from edgeagent.api.http.body_base import BodyModel
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


class RecentRequestBody(BodyModel):
    """One request that has ended: counts and times, nothing of whom or of what. Times in milliseconds."""

    model_config = ConfigDict(from_attributes=True)

    created_ms: int = Field(description="UTC")
    endpoint: str
    model: str
    route: str = Field(description="the reason for the model")
    route_name: str | None = Field(description="the route that the request named, such as `auto`")
    status: int
    finish: str | None
    n_prompt: int
    n_cached: int
    n_generated: int
    queue_ms: float | None
    ttft_ms: float | None
    total_ms: float
    audio_s: float | None


class RecentRequestList(BodyModel):
    """The last requests to models, the newest first."""

    object: Literal["list"] = "list"
    data: list[RecentRequestBody]


@get(
    "/metrics/requests",
    operation_id="recent_requests",
    summary="The last requests to models, by counts and times",
    description="At most 50, since the daemon started. A key needs the scope `metrics`.",
    tags=["system"],
)
async def recent_requests(monitoring: Monitoring) -> RecentRequestList:
    return RecentRequestList(
        data=[RecentRequestBody.model_validate(row) for row in monitoring.recent()]
    )


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
