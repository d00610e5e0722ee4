"""The messages that the daemon and every kind of worker exchange.

The daemon sends `Load` first. The worker answers `Ready` or `LoadFailure`. From then on the daemon sends
requests, whose messages each kind of worker defines, and the worker sends their replies, beside a
`Heartbeat` twice a second, until it is told to end or dies. Each request has a number that the daemon
chooses; the worker ends it with the last reply of a stream, with one `Result`, or with a `Refusal`.

A kind of worker combines these messages with its own in two unions, one for each direction, and gives the
generic ones its types: `Load[EngineConfig] | Generate | Cancel | ...` (see `engine/protocol.py`).
"""

from __future__ import annotations

from typing import Generic, TypeVar

import msgspec

from edgeagent.types.worker_config import ComputeLimits

Config = TypeVar("Config")
Facts = TypeVar("Facts")
Health = TypeVar("Health")
Value = TypeVar("Value")

# --- from the daemon


class Load(msgspec.Struct, Generic[Config], frozen=True, tag="load"):
    """The first message: which model to load and how, and from which level on to log."""

    config: Config
    log_level: str = "info"


class Cancel(msgspec.Struct, frozen=True, tag="cancel"):
    """Stop working on a request. What was made of it until then is still sent."""

    request_id: int


class SetLimits(msgspec.Struct, frozen=True, tag="set_limits"):
    """Compute within these limits from the next step on."""

    limits: ComputeLimits


class Shutdown(msgspec.Struct, frozen=True, tag="shutdown"):
    """End the process at once."""


# --- from the worker


class Ready(msgspec.Struct, Generic[Facts], frozen=True, tag="ready"):
    """The model is loaded."""

    facts: Facts


class LoadFailure(msgspec.Struct, frozen=True, tag="load_failed"):
    """The model cannot be loaded: an error of `errors.py` by its code. The process ends."""

    code: str
    message: str


class Result(msgspec.Struct, Generic[Value], frozen=True, tag="result"):
    """The whole answer to a request that is answered in one piece."""

    request_id: int
    value: Value


class Refusal(msgspec.Struct, frozen=True, tag="refused"):
    """A request that ended before its first reply: an error of `errors.py` by its code."""

    request_id: int
    code: str
    message: str
    param: str | None = None
    retry_after_s: float | None = None


class Heartbeat(msgspec.Struct, Generic[Health], frozen=True, tag="heartbeat"):
    """The main thread gets on. `silent_s`: how long one of the other threads has worked on one thing
    without a sign."""

    health: Health
    silent_s: float = 0.0
