"""`/admin/keys`: make, list, revoke and rotate API keys. A sealed key is made on the device only."""

from __future__ import annotations

import asyncio
from typing import Any

from litestar import Request, Response, delete, get, post
from litestar.openapi.datastructures import ResponseSpec

from edgeagent.api.admin.key_schemas import (
    KeyBody,
    KeyList,
    KeyRequest,
    NewKeyBody,
    RotateRequest,
    key_fields,
)
from edgeagent.api.http.body import body_operation, read_body
from edgeagent.api.http.caller import caller_of
from edgeagent.api.openai.schemas.common import ErrorBody
from edgeagent.errors import Forbidden
from edgeagent.settings import Settings
from edgeagent.store.key_record import Key, NewKey
from edgeagent.store.keyring import Keyring
from edgeagent.store.sql import now_ms
from edgeagent.types.caller import LOCAL

_UNKNOWN = ResponseSpec(ErrorBody, description="Unknown key")
_FORBIDDEN = ResponseSpec(ErrorBody, description="Done on the device only")
_INVALID = ResponseSpec(ErrorBody, description="The request is not valid")


@post(
    "/admin/keys",
    operation_class=body_operation(KeyRequest),
    operation_id="create_key",
    summary="Make an API key",
    description=(
        "The answer has the secret, this once. From the first key on, every request needs one; the "
        "setting `api.first_key` may leave making the first one to the command line."
    ),
    tags=["keys"],
    responses={
        201: ResponseSpec(NewKeyBody, description="The key and its secret"),
        400: _INVALID,
        403: _FORBIDDEN,
    },
)
async def create_key(
    request: Request[Any, Any, Any], keyring: Keyring, settings: Settings
) -> Response[NewKeyBody]:
    body = await read_body(request, KeyRequest)
    caller = caller_of(request)
    if caller == LOCAL and settings.api.first_key == "command-line":
        raise Forbidden(
            "The first key of this daemon is made on the device (api.first_key = command-line): run "
            "`edgeagent keys create` there."
        )
    spec = body.spec(await asyncio.to_thread(keyring.now_ms))
    return _secret(await asyncio.wrap_future(keyring.create(spec, caller.key_id)))


@get(
    "/admin/keys",
    operation_id="list_keys",
    summary="List the API keys",
    description="Dead ones too, until they are forgotten. Without secrets.",
    tags=["keys"],
)
async def list_keys(keyring: Keyring) -> KeyList:
    found, now = await asyncio.to_thread(lambda: (keyring.all(), keyring.now_ms()))
    return KeyList(data=[KeyBody.model_validate(key_fields(key, now)) for key in found])


@delete(
    "/admin/keys/{key_id:str}",
    operation_id="revoke_key",
    summary="End an API key",
    description=(
        "At once for new requests; what it is being answered now ends by itself. A sealed key is ended "
        "on the device."
    ),
    tags=["keys"],
    status_code=200,
    responses={403: _FORBIDDEN, 404: _UNKNOWN},
)
async def revoke_key(request: Request[Any, Any, Any], keyring: Keyring, key_id: str) -> KeyBody:
    ended = keyring.revoke(key_id, caller_of(request).key_id, may_be_sealed=False)
    return _body(await asyncio.wrap_future(ended))


@post(
    "/admin/keys/{key_id:str}/rotate",
    operation_class=body_operation(RotateRequest),
    operation_id="rotate_key",
    summary="Replace an API key",
    description=(
        "A new secret with the same owner, scopes, limits and lifetime. The old one ends at once, or "
        "after `grace_s`. A sealed key is rotated on the device."
    ),
    tags=["keys"],
    responses={
        201: ResponseSpec(NewKeyBody, description="The new key and its secret"),
        400: _INVALID,
        404: _UNKNOWN,
    },
)
async def rotate_key(
    request: Request[Any, Any, Any], keyring: Keyring, key_id: str
) -> Response[NewKeyBody]:
    body = await read_body(request, RotateRequest)
    made = keyring.rotate(key_id, caller_of(request).key_id, body.grace_s, may_be_sealed=False)
    return _secret(await asyncio.wrap_future(made))


def _body(key: Key) -> KeyBody:
    return KeyBody.model_validate(key_fields(key, now_ms()))


def _secret(made: NewKey) -> Response[NewKeyBody]:
    fields = key_fields(made.key, now_ms()) | {"secret": made.secret}
    body = NewKeyBody.model_validate(fields)
    return Response(body, status_code=201, headers={"cache-control": "no-store"})
