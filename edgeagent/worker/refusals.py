"""Refusals that every kind of worker gives in the same words."""

from __future__ import annotations

from edgeagent.errors import QueueFull


def queue_full(model_id: str, queue_limit: int, *, retry_after_s: float = 5.0) -> QueueFull:
    """The refusal of a request for which the queue of a model has no room."""
    return QueueFull(
        f"{queue_limit} requests wait for {model_id}: try again later or raise engine.queue_limit.",
        retry_after_s=retry_after_s,
    )
