"""What an error must look like, by its path."""

from __future__ import annotations

import contextlib
import json

from tests.api.wire import message_at

PLANNED = (501, 503, 507)
DIALECTS = ("", "/v1/messages", "/api/chat")  # a path of each


def has_shape(path: str | None, status: int, body: bytes) -> bool:
    """Whether the body of an error is what its path says; of any path for None."""
    try:
        found = json.loads(body)
    except ValueError:
        return False
    if (
        path in ("/ready", None)
        and status == 503
        and list(found)[:3] == ["status", "model", "reason"]
    ):
        return True  # it says why not, in its own words
    for shape in DIALECTS if path is None else (path,):
        with contextlib.suppress(AssertionError, KeyError, TypeError):
            return bool(message_at(shape, found))
    return False
