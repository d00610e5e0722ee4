"""Documents errors in OpenAPI: any operation may answer with one, in the format of its path.

Statuses that need an explanation are documented at the routes; `default` stands for the others.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable
from http import HTTPStatus
from typing import Any

import pydantic
from litestar.handlers import HTTPRouteHandler
from litestar.openapi.spec import OpenAPIMediaType, OpenAPIResponse, Operation

from edgeagent.api.anthropic.schemas import AnthropicError
from edgeagent.api.http.body import inlined
from edgeagent.api.http.dialects import ANTHROPIC, OLLAMA, OPENAI, dialect_of
from edgeagent.api.ollama.chat_schemas import OllamaError
from edgeagent.api.openai.schemas.shared_request_fields import ErrorBody

_BODIES: dict[Any, type[pydantic.BaseModel]] = {
    OPENAI: ErrorBody,
    ANTHROPIC: AnthropicError,
    OLLAMA: OllamaError,
}


def document_errors(handlers: Iterable[HTTPRouteHandler]) -> None:
    """Add the error format of its path to each handler."""
    for handler in handlers:
        (dialect,) = {dialect_of(path) for path in handler.paths}
        handler.operation_class = _documented(handler.operation_class, _BODIES[dialect])


def _documented(base: type[Operation], body: type[pydantic.BaseModel]) -> type[Operation]:
    class WithErrors(base):  # type: ignore[valid-type, misc]
        responses: Any

        def __init__(self, **fields: Any) -> None:
            super().__init__(**fields)
            responses = dict(self.responses or {})
            added = responses.get("400")
            if added is not None and added.description.startswith(HTTPStatus(400).description):
                del responses["400"]  # Litestar's own, which is never sent
            responses["default"] = OpenAPIResponse(
                description="An error",
                content={"application/json": OpenAPIMediaType(schema=_schema_of(body))},
            )
            self.responses = responses

    return WithErrors


@functools.cache
def _schema_of(body: type[pydantic.BaseModel]) -> Any:
    """Made once: all operations of a dialect have the same."""
    return inlined(body.model_json_schema(mode="serialization"))
