"""Who makes this request, as the layers before the routes have found out."""

from __future__ import annotations

from typing import Any

from litestar import Request

from edgeagent.api.http.access import parts
from edgeagent.serving.answer import RequestOrigin
from edgeagent.types.caller import Caller


def caller_of(request: Request[Any, Any, Any]) -> Caller:
    """The key's holder; without keys, whoever is on this machine."""
    found = request.scope["state"][
        "caller"
    ]  # api/http/auth.py has put it there, or nothing got here
    assert isinstance(found, Caller)
    return found


def origin_of(request: Request[Any, Any, Any]) -> RequestOrigin:
    """What the agent notes of a request."""
    caller = caller_of(request)
    return RequestOrigin(
        endpoint="/" + "/".join(parts(request.scope["path"])),
        request_id=str(request.scope["state"]["request_id"]),
        owner=caller.owner,
        key_id=caller.key_id,
        tools=caller.tools,
    )


def bounded_priority(caller: Caller, priority: int | None) -> int:
    """The priority of a request: one above the usual 0 is for keys that run the machine, lest each client
    put itself before all others."""
    may_lead = caller.scopes & {"models", "admin"}
    return priority or 0 if may_lead else min(priority or 0, 0)
