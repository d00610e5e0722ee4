"""`GET /v1/conformance`: the support of each parameter of each endpoint.

It is derived from the OpenAPI document, whose schemas validate the requests: a parameter without a mark
(api/http/field_support.py) is honoured.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from litestar import Request, get

from edgeagent.api.http.field_support import REFUSED, SUPPORT
from edgeagent.api.openai.schemas.parameter_support import (
    ConformanceReport,
    EndpointConformance,
    ParameterConformance,
)
from edgeagent.types.version import VERSION


@get(
    "/v1/conformance",
    operation_id="conformance",
    summary="Which parameters are honoured, ignored or refused",
    description=(
        "For each endpoint, derived from the schemas that validate requests. Fields of objects and "
        "of list items are named with dots and brackets: `messages[].content`."
    ),
    tags=["system"],
    sync_to_thread=True,  # the first call builds the document
)
def show_conformance(request: Request[Any, Any, Any]) -> ConformanceReport:
    return report(request.app.openapi_schema.to_schema())


def report(document: dict[str, Any]) -> ConformanceReport:
    """The report on an OpenAPI document."""
    return ConformanceReport(
        version=VERSION,
        data=[
            EndpointConformance(
                method=method.upper(),
                path=path,
                summary=operation.get("summary", ""),
                parameters=[*_in_url(operation), *_in_body(operation)],
            )
            for path, item in document["paths"].items()
            for method, operation in item.items()
            if isinstance(operation, dict)
        ],
    )


def _in_url(operation: dict[str, Any]) -> Iterator[ParameterConformance]:
    for parameter in operation.get("parameters", []):
        yield ParameterConformance(
            name=parameter["name"],
            where=parameter["in"],
            support=parameter.get("schema", {}).get(SUPPORT, "honoured"),
            description=parameter.get("description"),
        )


def _in_body(operation: dict[str, Any]) -> Iterator[ParameterConformance]:
    for media in operation.get("requestBody", {}).get("content", {}).values():
        yield from _fields(media.get("schema", {}), "")


def _fields(schema: dict[str, Any], prefix: str) -> Iterator[ParameterConformance]:
    """The fields of an object and of what they hold, each name once."""
    seen = set()
    for variant in _variants(schema):
        for name, field in variant.get("properties", {}).items():
            if name in seen:
                continue
            seen.add(name)
            yield ParameterConformance(
                name=prefix + name,
                where="body",
                support=field.get(SUPPORT, "honoured"),
                description=field.get("description"),
            )
            yield from _fields(field, f"{prefix}{name}.")
        for name, harmless in variant.get(REFUSED, {}).items():
            yield ParameterConformance(
                name=prefix + name, where="body", support="refused", accepts=harmless
            )
        if "items" in variant:
            yield from _fields(variant["items"], prefix.removesuffix(".") + "[].")


def _variants(schema: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The schema and its alternatives, those of alternatives too."""
    yield schema
    for keyword in ("anyOf", "oneOf", "allOf"):
        for inner in schema.get(keyword, []):
            yield from _variants(inner)
