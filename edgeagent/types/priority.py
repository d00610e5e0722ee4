"""Classes of priority: who gives way to whom when there is too much to do."""

from __future__ import annotations

# Priorities of requests that name none. A person waits for an answer, speaks and goes on, or does not wait.
INTERACTIVE = 0
DICTATION = -10
BATCH = -50


def rank(priority: int) -> int:
    """The class of a priority: 2 interactive, 1 dictation, 0 batch. A higher class takes slots from a lower
    one; within a class a higher priority only comes first."""
    if priority > DICTATION:
        return 2
    return 1 if priority > BATCH else 0
