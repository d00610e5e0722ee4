"""Audits reads of stored data whose owner has several keys (setting `store.audit_reads`).

Rows belong to the owner of a key, and all keys of an owner see the same rows: one person's, or those of a
whole ward. In the second case an audit row tells who has read them. It is written before the answer. Rows
do not record which key made them, so that reads of one's own rows are audited too.

Continuing a stored dialogue (`previous_response_id`, `conversation`, an item by reference) makes the model
repeat it, and changing the metadata of a row returns the row: both count as reads.
"""

from __future__ import annotations

from typing import cast

from litestar.types import ASGIApp, HTTPScope, Receive, Scope, Send

from edgeagent.api.http.errors import encoded, translate
from edgeagent.api.http.path_scopes import parts
from edgeagent.api.http.request_context import context_of
from edgeagent.serving.authentication import Authenticator
from edgeagent.serving.conversations import NOTE_READ

STORED = (
    ("v1", "responses"),
    ("v1", "conversations"),
    ("v1", "chat", "completions"),
    ("v1", "search"),
    ("v1", "files"),
    ("v1", "batches"),
    ("v1", "audio", "transcripts"),
    ("v1", "audio", "jobs"),
)
# POST paths that return a stored row; `*` is any part.
SHOWN_BY_POST = (
    ("v1", "responses", "*", "cancel"),
    ("v1", "conversations", "*"),
    ("v1", "chat", "completions", "*"),
)


class ReadAudit:
    """An ASGI layer behind authentication. Event loop's thread only."""

    def __init__(self, app: ASGIApp, authenticator: Authenticator) -> None:
        self._app = app
        self._authenticator = authenticator

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        kind: str = scope["type"]
        http = cast(HTTPScope, scope)
        caller = context_of(scope).caller if kind == "http" else None
        if caller is not None:
            request = f"{http['method']} {http['path'][:200]}"
            if is_stored_read(http["method"], http["path"]):
                try:
                    await self._authenticator.note_read(caller, request)
                except Exception as exc:
                    await _refuse(exc, http, send)
                    return
            note = self._authenticator.note_read
            NOTE_READ.set(lambda what: note(caller, f"{request} {what}"))
        await self._app(scope, receive, send)


def is_stored_read(method: str, path: str) -> bool:
    wanted = tuple(parts(path))
    if method == "POST":
        return any(
            len(wanted) == len(shape) and all(map(_fits, wanted, shape)) for shape in SHOWN_BY_POST
        )
    return method in ("GET", "HEAD") and any(wanted[: len(below)] == below for below in STORED)


def _fits(part: str, shape: str) -> bool:
    return shape in ("*", part)


async def _refuse(exc: Exception, scope: HTTPScope, send: Send) -> None:
    """Refuse a read that cannot be audited."""
    status, headers, body = encoded(translate(exc), scope)
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body, "more_body": False})
