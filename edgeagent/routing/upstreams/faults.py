"""What went wrong with an upstream, and what follows from it. Pure.

| fault | the engine | repeated elsewhere by `repeats` | the breaker counts it |
|---|---|---|---|
| unreachable | no connection, no valid certificate | always | yes |
| busy | 429, 503: it has refused; it is avoided for Retry-After | always | no |
| rejected | 401, a redirect: the settings are wrong | always | yes |
| denied | 403: it does not do this for us | always | no |
| absent | 404: it does not have the model | always | for the model |
| invalid | 400, 413, 422: the request is wrong, everywhere | never | no |
| broken | the connection ended before the first piece | "broken", "silent" | yes |
| failed | 500, 502, 504: it may be computing still | "silent" | yes |
| silent | no byte in time: it may be computing still | "silent" | yes |
| nonsense | 200, and no answer in OpenAI's format | "silent" | yes |
| unfinished | pieces came, and the answer was longer than `max_answer_s` | never | no |
| miscalled | the model calls a tool that was not offered, or without valid arguments | "silent" | no |

What one request can bring about does not count: it would close the upstream for all keys.

Nothing is repeated once the client has seen a piece. A connection is closed before another engine is asked,
so that the client can never get two answers; "silent" accepts that two engines may have computed one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from edgeagent.errors import (
    ContextLengthExceeded,
    EdgeAgentError,
    InvalidParameter,
    UpstreamFailed,
    UpstreamTimeout,
    UpstreamUnavailable,
)
from edgeagent.settings.upstreams import Repeats

FaultKind = Literal[
    "unreachable", "busy", "rejected", "denied", "absent", "invalid", "broken", "failed", "silent",
    "nonsense", "miscalled", "unfinished",
]  # fmt: skip
# What a fault counts against: the upstream, one of its models, or nothing.
Blame = Literal["upstream", "model", "nothing"]

_LEAST: dict[FaultKind, Repeats] = {
    "unreachable": "refused",
    "busy": "refused",
    "rejected": "refused",
    "denied": "refused",
    "absent": "refused",
    "broken": "broken",
    "failed": "silent",
    "silent": "silent",
    "nonsense": "silent",
    "miscalled": "silent",
}
_ORDER: tuple[Repeats, ...] = ("refused", "broken", "silent")
_BLAMES: dict[FaultKind, Blame] = {
    "busy": "nothing",
    "denied": "nothing",
    "absent": "model",
    "invalid": "nothing",
    "miscalled": "nothing",
    "unfinished": "nothing",
}
TOO_LONG = "context_length_exceeded"
# How engines other than OpenAI's say it: llama-server by the type of the error, vLLM by its text.
_TOO_LONG_TYPE, _TOO_LONG_TEXT = "exceed_context_size_error", "maximum context length"
# What a Retry-After of an upstream may be, in seconds.
MIN_COOL_S, MAX_COOL_S = 0.1, 600.0


class Fault(Exception):
    """A request to an upstream that failed. `text` is for the client: it has no content of other requests."""

    def __init__(
        self, kind: FaultKind, text: str, *, retry_after_s: float | None = None, code: str = ""
    ) -> None:
        super().__init__(text)
        self.kind = kind
        self.text = text
        self.retry_after_s = retry_after_s
        self.code = code


def error_code(error: Mapping[str, object]) -> str:
    """The code of an `error` object, in OpenAI's terms where we know how the engine says it."""
    code, kind, text = error.get("code"), error.get("type"), error.get("message")
    if kind == _TOO_LONG_TYPE or (isinstance(text, str) and _TOO_LONG_TEXT in text):
        return TOO_LONG
    return code if isinstance(code, str) else ""


def may_repeat(kind: FaultKind, repeats: Repeats, *, has_begun: bool) -> bool:
    """Whether another engine may be asked. `has_begun`: the client has seen a piece of the answer."""
    least = _LEAST.get(kind)
    return not has_begun and least is not None and _ORDER.index(repeats) >= _ORDER.index(least)


def blamed(kind: FaultKind) -> Blame:
    """What a breaker counts it against."""
    return _BLAMES.get(kind, "upstream")


def kind_of_status(status: int) -> FaultKind | None:
    """The fault of an HTTP status; None for 200."""
    if status == 200:
        return None
    if status in (429, 503):
        return "busy"
    if status in (403, 404):
        return "denied" if status == 403 else "absent"
    if 300 <= status < 400 or status in (401, 405, 407, 421):
        return "rejected"
    if 400 <= status < 500:
        return "invalid"
    return "failed" if status >= 500 else "nonsense"


def retry_after(value: str | None) -> float:
    """The seconds of a Retry-After header, within bounds. Dates are not read: clocks of devices are wrong."""
    try:
        seconds = float(value or "")
    except ValueError:
        seconds = 1.0
    return min(max(seconds, MIN_COOL_S), MAX_COOL_S) if seconds == seconds else 1.0


def error_of(fault: Fault, model_id: str, *, is_repeatable: bool) -> EdgeAgentError:
    """What the client is told. An error that `is_repeatable` lets a route ask its next model."""
    if fault.kind == "invalid":
        text = f"Model {model_id} answers elsewhere and refuses the request: {fault.text}"
        is_long = fault.code == TOO_LONG
        return ContextLengthExceeded(text) if is_long else InvalidParameter(text)
    text = f"Model {model_id} answers elsewhere, and cannot now: {fault.text}"
    if is_repeatable or _LEAST.get(fault.kind) == "refused":
        text += ": try again, or name another model."
        return UpstreamUnavailable(text, retry_after_s=fault.retry_after_s or 5.0)
    text += ": the request was not repeated, since it may have been computed (`repeats`)."
    return UpstreamTimeout(text) if fault.kind in ("silent", "unfinished") else UpstreamFailed(text)
