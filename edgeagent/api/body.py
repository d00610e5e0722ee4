"""Request bodies: read within bounds, decoded, validated, and shown on the OpenAPI page."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeVar

import msgspec
import pydantic
from litestar import Request
from litestar.exceptions import InternalServerException
from litestar.openapi.spec import OpenAPIMediaType, Operation, RequestBody

from edgeagent.api.errors import register_fields
from edgeagent.errors import BadRequest

Model = TypeVar("Model", bound=pydantic.BaseModel)


async def read_body(request: Request[Any, Any, Any], model: type[Model]) -> Model:
    """The JSON body as `model`.

    Raises: BadRequest for what is no JSON, NaN and too deep nesting included; pydantic's
    ValidationError for what is no `model`; BodyTooLarge from the guard.
    """
    try:
        raw = await request.body()
    except InternalServerException as exc:  # Litestar's word for a client that has left
        raise BadRequest("The body ended before it was whole: send all of it.") from exc
    if not raw.strip():
        raise BadRequest("The body is empty, a JSON object is expected: send one.")
    try:
        value = msgspec.json.decode(raw)
    except RecursionError:
        raise BadRequest("The body is nested too deeply: send a flatter JSON object.") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as exc:
        raise BadRequest(f"The body is not valid JSON ({exc}): correct it there.") from exc
    if not isinstance(value, dict):
        raise BadRequest(f"The body is a JSON {_kind(value)}, an object is expected.")
    return model.model_validate(value)


def _kind(value: object) -> str:
    return {list: "array", str: "string", bool: "boolean", type(None): "null"}.get(
        type(value), "number"
    )


def body_operation(model: type[pydantic.BaseModel]) -> type[Operation]:
    """An OpenAPI operation whose request body is `model`, for handlers that read it by `read_body`.

    Litestar makes one when the document is first asked for, and only then is the schema worked out.
    """
    register_fields(model)

    @dataclass
    class WithBody(Operation):
        def __post_init__(self) -> None:
            schema: Any = inlined(model.model_json_schema(mode="validation"))
            self.request_body = RequestBody(
                content={"application/json": OpenAPIMediaType(schema=schema)}, required=True
            )

    return WithBody


def inlined(schema: dict[str, Any]) -> Any:
    """The schema with its `$defs` put in place of the references to them; what stands beside a reference
    says more of it. A type within itself is shown once."""
    definitions = schema.pop("$defs", {})

    def walk(node: Any, within: tuple[str, ...]) -> Any:
        if isinstance(node, list):
            return [walk(item, within) for item in node]
        if not isinstance(node, dict):
            return node
        if "$ref" not in node:
            return {key: walk(value, within) for key, value in node.items()}
        name = node["$ref"].rsplit("/", 1)[1]
        beside = {key: walk(value, within) for key, value in node.items() if key != "$ref"}
        if name in within:
            return {"type": "object"} | beside
        return walk(definitions[name], (*within, name)) | beside

    return walk(schema, ())
