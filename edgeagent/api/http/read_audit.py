"""Who has read what is stored, where several keys share an owner (setting `store.audit_reads`).

Rows belong to the owner of a key, and keys of one owner see the same rows: those of one person, or of
everybody on a ward. In the second case an audit row for each read says who has looked. It is written before
anything is answered. Rows do not say which key made them, so that a read of one's own is audited too.

Whoever continues a stored dialogue (`previous_response_id`, `conversation`, an item by reference) can let
the model tell it, and so can whoever changes the metadata of a row and is answered with all of it: both are
reads.
"""

from __future__ import annotations

import asyncio
from typing import cast

from litestar.types import ASGIApp, HTTPScope, Receive, Scope, Send

from edgeagent.api.http.access import parts
from edgeagent.api.http.errors import encoded, translate
from edgeagent.serving.conversations import NOTE_READ
from edgeagent.store.keyring import Keyring
from edgeagent.types.caller import Caller

STORED = (
    ("v1", "responses"),
    ("v1", "conversations"),
    ("v1", "chat", "completions"),
    ("v1", "search"),
)
# Answered with the row as it is stored; `*` is any part.
SHOWN_BY_POST = (
    ("v1", "responses", "*", "cancel"),
    ("v1", "conversations", "*"),
    ("v1", "chat", "completions", "*"),
)


class ReadAudit:
    """An ASGI layer behind authentication, which has found the caller. Event loop's thread only."""

    def __init__(self, app: ASGIApp, keyring: Keyring) -> None:
        self._app = app
        self._keyring = keyring

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        kind: str = scope["type"]
        http = cast(HTTPScope, scope)
        caller = (scope.get("state") or {}).get("caller") if kind == "http" else None
        if caller is not None:
            request = f"{http['method']} {http['path'][:200]}"
            if is_stored_read(http["method"], http["path"]):
                try:
                    await self._note(caller, request)
                except Exception as exc:
                    await _refuse(exc, http, send)
                    return
            NOTE_READ.set(lambda what: self._note(caller, f"{request} {what}"))
        await self._app(scope, receive, send)

    async def _note(self, caller: Caller, what: str) -> None:
        if await asyncio.to_thread(self._keyring.is_shared, caller.owner):
            await asyncio.wrap_future(self._keyring.note_read(caller, what))


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
    """A read that cannot be audited is refused."""
    status, headers, body = encoded(translate(exc), scope)
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body, "more_body": False})
