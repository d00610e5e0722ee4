"""Answer of `GET /v1/conformance`."""

from __future__ import annotations

from typing import Any, Literal

from edgeagent.api.http.body_base import BodyModel
from edgeagent.api.http.field_support import Support


class ParameterConformance(BodyModel):
    """The support of one parameter. An `extension` is honoured, but not part of OpenAI's API; a `refused`
    one is a 400 unless it is null or has one of the values in `accepts`."""

    name: str
    where: Literal["path", "query", "header", "cookie", "body"]
    support: Support
    description: str | None = None
    accepts: list[Any] | None = None


class EndpointConformance(BodyModel):
    method: str
    path: str
    summary: str
    parameters: list[ParameterConformance]


class ConformanceReport(BodyModel):
    object: Literal["conformance"] = "conformance"
    version: str
    data: list[EndpointConformance]
