"""The last requests to models as `edgeagent top` shows them: counts and times, nothing of whom or of what."""

from __future__ import annotations

import msgspec

from edgeagent.store.requests import RequestRow

N_RECENT = 50


class RecentRequest(msgspec.Struct, frozen=True, kw_only=True):
    """One request that has ended. `created_ms` UTC; times in milliseconds; None: unknown. `route` is the
    reason for the model, `route_name` the route that the request named."""

    created_ms: int
    endpoint: str
    model: str
    route: str
    route_name: str | None
    status: int
    finish: str | None
    n_prompt: int
    n_cached: int
    n_generated: int
    queue_ms: float | None
    ttft_ms: float | None
    total_ms: float
    audio_s: float | None


def recent_request(row: RequestRow) -> RecentRequest:
    """What is shown of a row of the request log: no key, no owner, no identifier."""
    return RecentRequest(**{name: getattr(row, name) for name in RecentRequest.__struct_fields__})
