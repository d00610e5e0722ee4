"""`/admin/keys`: create, list, revoke and rotate API keys. Sealed keys are made on the device only."""

from __future__ import annotations

from typing import Any

from litestar import Response, delete, get, post

from edgeagent.api.admin.key_schemas import (
    KeyBody,
    KeyList,
    KeyRequest,
    NewKeyBody,
    RotateRequest,
)
from edgeagent.api.http.body import body_operation, read_body
from edgeagent.api.http.caller import ApiRequest, caller_of
from edgeagent.api.http.response_doc import response_doc
from edgeagent.api.openai.schemas.shared_request_fields import ErrorBody
from edgeagent.serving.key_admin import KeyAdmin
from edgeagent.types.caller import KeyLimits

_UNKNOWN = response_doc(ErrorBody, description="Unknown key")
_FORBIDDEN = response_doc(ErrorBody, description="Possible on the device only")
_INVALID = response_doc(ErrorBody, description="The request is not valid")


@post(
    "/admin/keys",
    operation_class=body_operation(KeyRequest),
    operation_id="create_key",
    summary="Create an API key",
    description=(
        "The answer contains the secret, only this once. From the first key on, every request needs one; the "
        "setting `api.first_key` may restrict making the first key to the command line."
    ),
    tags=["keys"],
    responses={
        201: response_doc(NewKeyBody, description="The key and its secret"),
        400: _INVALID,
        403: _FORBIDDEN,
    },
)
async def create_key(request: ApiRequest, keys: KeyAdmin) -> Response[NewKeyBody]:
    body = await read_body(request, KeyRequest)
    made = await keys.create(
        caller_of(request),
        name=body.name,
        scopes=body.scopes,
        owner=body.owner,
        limits=KeyLimits(**body.limits.model_dump()),
        tools=frozenset(body.tools) if body.tools is not None else None,
        expires_in_s=body.expires_in_s,
    )
    return _secret(made)


@get(
    "/admin/keys",
    operation_id="list_keys",
    summary="List the API keys",
    description="Including revoked and expired ones, until they are deleted. Without secrets.",
    tags=["keys"],
)
async def list_keys(keys: KeyAdmin) -> KeyList:
    return KeyList(data=[KeyBody.model_validate(key) for key in await keys.listed()])


@delete(
    "/admin/keys/{key_id:str}",
    operation_id="revoke_key",
    summary="Revoke an API key",
    description=(
        "Takes effect at once for new requests; running requests finish. Live sessions, transcription jobs "
        "and those who follow them end within seconds. A sealed key is revoked on the device."
    ),
    tags=["keys"],
    status_code=200,
    responses={403: _FORBIDDEN, 404: _UNKNOWN},
)
async def revoke_key(request: ApiRequest, keys: KeyAdmin, key_id: str) -> KeyBody:
    return KeyBody.model_validate(await keys.revoke(caller_of(request), key_id))


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
        201: response_doc(NewKeyBody, description="The new key and its secret"),
        400: _INVALID,
        404: _UNKNOWN,
    },
)
async def rotate_key(request: ApiRequest, keys: KeyAdmin, key_id: str) -> Response[NewKeyBody]:
    body = await read_body(request, RotateRequest)
    return _secret(await keys.rotate(caller_of(request), key_id, body.grace_s))


def _secret(fields: dict[str, Any]) -> Response[NewKeyBody]:
    body = NewKeyBody.model_validate(fields)
    return Response(body, status_code=201, headers={"cache-control": "no-store"})
