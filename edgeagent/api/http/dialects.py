"""The dialect of a path: OpenAI's, Anthropic's or Ollama's. Their errors differ in format.

The path alone decides, so that an error before the routing has the format that the client of the path can
read.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from edgeagent.api.http.path_scopes import parts
from edgeagent.errors import EdgeAgentError

# By status; other statuses are the client's error below 500 and a server error from there on.
_ANTHROPIC_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    409: "conflict_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
}


class Dialect(NamedTuple):
    """`error` makes the body of an error from the error, its status and the id of the request."""

    error: Callable[[EdgeAgentError, int, str], dict[str, Any]]


def openai_error(error: EdgeAgentError, status: int, request_id: str = "") -> dict[str, Any]:
    """`{"error": {...}}`."""
    return {
        "error": {
            "message": error.message,
            "type": "invalid_request_error" if status < 500 else "server_error",
            "param": error.param,
            "code": error.code,
        }
    }


def anthropic_error(error: EdgeAgentError, status: int, request_id: str = "") -> dict[str, Any]:
    """`{"type": "error", "error": {"type", "message"}, "request_id"}`; some errors have `details`."""
    other = "invalid_request_error" if status < 500 else "api_error"
    kind = _ANTHROPIC_TYPES.get(status, other)
    return {
        "type": "error",
        "error": {"type": kind, "message": error.message}
        | ({"details": error.details} if error.details is not None else {}),
        "request_id": request_id or None,
    }


def ollama_error(error: EdgeAgentError, status: int, request_id: str = "") -> dict[str, Any]:
    """`{"error": "..."}`."""
    return {"error": error.message}


OPENAI = Dialect(openai_error)
ANTHROPIC = Dialect(anthropic_error)
OLLAMA = Dialect(ollama_error)


def dialect_of(path: str) -> Dialect:
    """The dialect of a path and of everything below it."""
    wanted = parts(path)
    if wanted[:2] == ["v1", "messages"]:
        return ANTHROPIC
    return OLLAMA if wanted[:1] == ["api"] else OPENAI
