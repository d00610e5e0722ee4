"""Decodes and validates request bodies, and documents them on the OpenAPI page."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from typing import Any, TypeVar

import msgspec
import pydantic
from litestar import Request
from litestar.openapi.spec import OpenAPIMediaType, Operation, RequestBody
from pydantic_core import CoreConfig, SchemaValidator

from edgeagent.api.http import encodings
from edgeagent.api.http.body_memory import Body
from edgeagent.api.http.errors import register_fields
from edgeagent.api.http.request_context import context_of
from edgeagent.errors import BadRequest
from edgeagent.serving import json_structure

Model = TypeVar("Model", bound=pydantic.BaseModel)
T = TypeVar("T")

BOM = b"\xef\xbb\xbf"
# Larger bodies are decoded on a thread, one at a time: each takes ten times its size in memory.
MUCH_BYTES = 64 << 10
MAX_BYTES = 1 << 30
_beside = ThreadPoolExecutor(max_workers=1, thread_name_prefix="body")


async def read_body(request: Request[Any, Any, Any], model: type[Model]) -> Model:
    """The JSON body as `model`.

    Raises: BadRequest for invalid JSON, including NaN and too much structure; pydantic's ValidationError
    for JSON that does not fit `model`; BodyTooLarge for a compressed body that exceeds the limit when
    unpacked.
    """
    context = context_of(request.scope)
    found = await _read(request, context.body, model)
    context.timeout_s = getattr(found, "timeout", None)
    context.is_stream = bool(getattr(found, "stream", False))
    return found


async def _read(request: Request[Any, Any, Any], body: Body | None, model: type[Model]) -> Model:
    if body is None:  # without the layers before the routes bodies are not compressed
        return read(await request.body(), encodings.IDENTITY, MAX_BYTES, model)
    return await beside(body, partial(read, model=model))


async def beside(body: Body, decode: Callable[[bytes, str, int], T]) -> T:
    """What `decode` makes of a body, its encoding and its bound: on a thread if that may take a while.
    Raises what it raises."""
    n_bytes, data = body.n_received, body.take()
    return await _where_it_fits(body, n_bytes, partial(decode, data, body.encoding, body.max_bytes))


async def pieces_beside(body: Body, decode: Callable[[Iterable[bytes]], T]) -> T:
    """The same for a `decode` that reads the decoded body piece by piece, so that it is held once. Raises
    BodyTooLarge and BadRequest as well, for a compressed body."""
    n_bytes, pieces = body.n_received, body.take_pieces()
    return await _where_it_fits(
        body, n_bytes, lambda: decode(encodings.pieces(pieces, body.encoding, body.max_bytes))
    )


async def _where_it_fits(body: Body, n_bytes: int, work: Callable[[], T]) -> T:
    if n_bytes <= MUCH_BYTES and body.encoding == encodings.IDENTITY:
        return work()
    return await asyncio.get_running_loop().run_in_executor(_beside, work)


def read(data: bytes | bytearray, encoding: str, max_bytes: int, model: type[Model]) -> Model:
    """Decode and validate a body. Any thread. Raises as `read_body`."""
    raw = bytes(encodings.decoded(data, encoding, max_bytes)).removeprefix(BOM)
    if not raw.strip():
        raise BadRequest("The body is empty, a JSON object is expected: send one.")
    json_structure.check_text(raw)
    try:
        value = msgspec.json.decode(raw)
    except RecursionError:
        raise BadRequest("The body is nested too deeply: send a flatter JSON object.") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as exc:
        raise BadRequest(f"The body is not valid JSON ({exc}): correct it there.") from exc
    if not isinstance(value, dict):
        raise BadRequest(f"The body is a JSON {_kind(value)}, an object is expected.")
    json_structure.check_value(value)
    found: Model = _validator(model).validate_python(value)
    return found


@cache
def _validator(model: type[pydantic.BaseModel]) -> SchemaValidator:
    """The model's validator, except that a list stops at its first error: only one error is reported."""
    model.model_rebuild()  # builds what a `BodyModel` puts off
    schema: Any = _failing_fast(model.__pydantic_core_schema__)
    return SchemaValidator(schema, CoreConfig(title=model.__name__), _use_prebuilt=False)


def _failing_fast(node: Any) -> Any:
    if isinstance(node, list):
        return [_failing_fast(item) for item in node]
    if isinstance(node, tuple):
        return tuple(_failing_fast(item) for item in node)
    if not isinstance(node, dict):
        return node
    found = {key: _failing_fast(value) for key, value in node.items()}
    if found.get("type") in ("list", "set", "frozenset", "tuple"):
        found["fail_fast"] = True
    return found


def _kind(value: object) -> str:
    return {list: "array", str: "string", bool: "boolean", type(None): "null"}.get(
        type(value), "number"
    )


def body_operation(
    model: type[pydantic.BaseModel], media_type: str = "application/json"
) -> type[Operation]:
    """An OpenAPI operation whose request body is `model`, for handlers that use `read_body`.

    Litestar creates it when the document is first requested, and only then is the schema generated. Making a
    dataclass of it would take a millisecond at each start.
    """
    register_fields(model)

    class WithBody(Operation):
        def __init__(self, **fields: Any) -> None:
            super().__init__(**fields)
            schema: Any = inlined(model.model_json_schema(mode="validation"))
            self.request_body = RequestBody(
                content={media_type: OpenAPIMediaType(schema=schema)}, required=True
            )

    return WithBody


def inlined(schema: dict[str, Any]) -> Any:
    """The schema with its `$defs` in place of the references to them; keys beside a reference are kept. A
    recursive type is shown once."""
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
