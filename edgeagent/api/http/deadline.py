"""How long a client waits for its answer, by the headers and the body of its request."""

from __future__ import annotations

import math
from collections.abc import Iterable

from edgeagent.api.http.request_context import RequestContext
from edgeagent.errors import InvalidParameter

OWN = b"x-request-timeout"
# The SDKs of OpenAI and Anthropic tell when they give up if nothing arrives.
OF_SDKS = (b"x-stainless-timeout", b"x-stainless-read-timeout")
MAX_TIMEOUT_S = 86_400.0


def deadline_of(context: RequestContext, headers: Iterable[tuple[bytes, bytes]]) -> float | None:
    """When an answer must have begun, by the monotonic clock; None: the client says nothing.

    It is the earliest of the field `timeout`, the header `x-request-timeout` and, unless the answer is a
    stream, which sends pings, the timeout of an SDK. Raises: InvalidParameter.
    """
    limits = [context.timeout_s] if context.timeout_s is not None else []
    for name, value in headers:
        if name == OWN:
            limits.append(_own_timeout_s(value))
        elif name in OF_SDKS and not context.is_stream:
            limits += [seconds] if (seconds := _seconds(value)) is not None else []
    return context.arrived_s + min(limits) if limits else None


def _own_timeout_s(value: bytes) -> float:
    seconds = _seconds(value)
    if seconds is None:
        raise InvalidParameter(
            f"The header x-request-timeout is {value.decode('latin-1')[:40]!r}: give seconds above 0, at "
            f"most {MAX_TIMEOUT_S:.0f}."
        )
    return seconds


def _seconds(value: bytes) -> float | None:
    """Seconds above 0; None for anything else."""
    try:
        seconds = float(value)
    except ValueError:
        return None
    return seconds if math.isfinite(seconds) and 0 < seconds <= MAX_TIMEOUT_S else None
