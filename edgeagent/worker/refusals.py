"""Refusals that every kind of worker gives in the same words."""

from __future__ import annotations

from edgeagent.errors import DeadlineExceeded, QueueFull, QueueTimeout


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


def deadline_exceeded(waited_s: float) -> DeadlineExceeded:
    """The refusal of a request whose deadline passed before it began."""
    return DeadlineExceeded(
        f"The request waited {waited_s:.1f} s, and its deadline has passed before it began: give it more "
        "time with `timeout`, or send fewer requests at once."
    )


def deadline_hopeless(wait_s: float, left_s: float) -> DeadlineExceeded:
    """The refusal of a request that would wait beyond its deadline."""
    return DeadlineExceeded(
        f"The request would wait {wait_s:.1f} s, and its deadline is in {max(0.0, left_s):.1f} s: give it "
        "more time with `timeout`, or send fewer requests at once."
    )
