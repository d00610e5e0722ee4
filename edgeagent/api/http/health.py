"""`GET /health` and `GET /ready`."""

from __future__ import annotations

from litestar import Response, get

from edgeagent.api.http.response_doc import response_doc
from edgeagent.api.openai.schemas.models import HealthBody, ReadyBody
from edgeagent.serving.client_errors import public
from edgeagent.serving.models import ModelAdmin
from edgeagent.types.version import VERSION


@get(
    "/health",
    operation_id="health",
    summary="Is the daemon alive?",
    tags=["system"],
    sync_to_thread=False,
)
def health() -> HealthBody:
    return HealthBody(version=VERSION)


@get(
    "/ready",
    operation_id="ready",
    summary="Whether a request to the default model would be answered now",
    tags=["system"],
    responses={503: response_doc(ReadyBody, description="Not now; `reason` says why")},
    sync_to_thread=False,
)
def ready(models: ModelAdmin) -> Response[ReadyBody]:
    readiness = models.readiness()
    reason = public(readiness.reason) if readiness.reason is not None else None
    body = ReadyBody(
        status=readiness.status,
        model=readiness.model_id,
        reason=reason,
        degraded=models.degraded,
    )
    if readiness.status == "ready":
        return Response(body)
    return Response(body, status_code=503, headers={"retry-after": "1"})
