"""Refusals that every kind of worker gives in the same words."""

from __future__ import annotations

from edgeagent.errors import QueueFull, QueueTimeout


def queue_full(model_id: str, queue_limit: int, *, retry_after_s: float = 5.0) -> QueueFull:
    """The refusal of a request for which the queue of a model has no room."""
    return QueueFull(
        f"{queue_limit} requests wait for {model_id}: try again later or raise engine.queue_limit.",
        retry_after_s=retry_after_s,
    )


def queue_timeout(waited_s: float, limit_s: float, *, retry_after_s: float) -> QueueTimeout:
    """The refusal of a request that has waited too long."""
    return QueueTimeout(
        f"The request waited {waited_s:.0f} s, the bound is {limit_s:g} s: try again later or raise "
        "engine.queue_timeout_s.",
        retry_after_s=retry_after_s,
    )
