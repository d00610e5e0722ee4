"""Where a request comes from: who sent it, and to which endpoint."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class RequestOrigin:
    """Sender and endpoint of one request.

    `owner` is the owner of the rows that the request reads and writes. Requests with the same `key_id`
    share cached prefixes. `tools` names the tools that the key may use; None allows any. `deadline_s` is
    when the answer must have begun, by the monotonic clock; None: no deadline. `is_retry`: the client says
    that it has sent the request before.
    `n_hops`: edgeagents that have sent the request on.
    `audio_s_per_day`: seconds of audio that the key may have transcribed; None: the bound of the settings.
    `traceparent`: the client's trace context as it sent it (W3C), for `[traces]`.
    """

    endpoint: str
    request_id: str
    owner: str
    key_id: str
    tools: frozenset[str] | None = None
    deadline_s: float | None = None
    is_retry: bool = False
    audio_s_per_day: float | None = None
    n_hops: int = 0
    traceparent: str | None = None
