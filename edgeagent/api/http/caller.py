"""The sender of a request, for routes."""

from __future__ import annotations

from typing import Any

from litestar import Request

from edgeagent.api.http.deadline import deadline_of
from edgeagent.api.http.path_scopes import parts
from edgeagent.api.http.request_context import context_of
from edgeagent.serving.request_origin import RequestOrigin
from edgeagent.types.caller import Caller

ApiRequest = Request[Any, Any, Any]


def caller_of(request: ApiRequest) -> Caller:
    """The holder of the key; without keys, the user of this machine."""
    return context_of(request.scope).known_caller


def origin_of(request: ApiRequest) -> RequestOrigin:
    """Sender, endpoint and deadline of a request whose body has been read. Raises: InvalidParameter."""
    caller, context = caller_of(request), context_of(request.scope)
    return RequestOrigin(
        endpoint="/" + "/".join(parts(request.scope["path"])),
        request_id=context.request_id,
        owner=caller.owner,
        key_id=caller.key_id,
        tools=caller.tools,
        deadline_s=deadline_of(context, request.scope["headers"]),
        is_retry=request.headers.get("x-stainless-retry-count", "0") not in ("", "0"),
        n_hops=_hops(request.headers.get("x-edgeagent-hops", "")),
        audio_s_per_day=caller.limits.audio_seconds_per_day,
        traceparent=request.headers.get("traceparent"),
    )


def _hops(value: str) -> int:
    """Edgeagents that a request has come through; a value that none of them sends counts as none."""
    return int(value) if len(value) == 1 and value.isdigit() and value.isascii() else 0


def bounded_priority(caller: Caller, priority: int | None) -> int:
    """The priority of a request. A value above the usual 0 needs a key that administers the machine, so that
    clients cannot put themselves before all others."""
    may_lead = caller.scopes & {"models", "admin"}
    found = priority or 0 if may_lead else min(priority or 0, 0)
    return found if caller.max_priority is None else min(found, caller.max_priority)
