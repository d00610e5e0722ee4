"""The outcome of routing: which model answers, and why."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from edgeagent.types.intents import Confidence

Reason = Literal["named", "default", "escalated"]


@dataclass(frozen=True)
class Decision:
    """The model that answers a request, and the reason.

    `reason` is "named" where the request names the model, "default" where it names none, and "escalated"
    where an assistant model was not sure enough (`confidence`) and its larger model takes over.
    """

    model_id: str
    reason: Reason
    confidence: Confidence | None = None
