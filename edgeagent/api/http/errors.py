"""Turns every exception into an answer in the format of its path. The only place that chooses status
codes."""

from __future__ import annotations

import math
import re
from functools import lru_cache
from typing import Any

import msgspec
import pydantic
from litestar import Request, Response
from litestar.exceptions import (
    HTTPException,
    MethodNotAllowedException,
    NotFoundException,
    ValidationException,
)
from litestar.types import Scope

from edgeagent.api.http.dialects import OPENAI, dialect_of
from edgeagent.api.http.request_context import context_of
from edgeagent.errors import (
    BadRequest,
    EdgeAgentError,
    InvalidParameter,
    NotFound,
    Unavailable,
    UnsupportedEncoding,
)
from edgeagent.serving.client_errors import client_error, public

MAX_MESSAGE = 1000  # characters of the message about one field
MAX_QUOTED = 80  # characters of a quoted name or value
MAX_RETRY_AFTER_S = 120  # openai-python ignores longer ones

STATUS = {
    "body_too_large": 413,
    "unsupported_media_type": 415,
    "unsupported_content_encoding": 415,
    "invalid_api_key": 401,
    "forbidden": 403,
    "insufficient_scope": 403,
    "misdirected_request": 403,
    "queue_full": 429,
    "conflict": 409,
    "conversation_locked": 409,
    "erasure_running": 409,
    "erased": 409,
    "store_off": 409,
    "idempotency_key_reused": 409,
    "legal_hold": 409,
    "rate_limit_exceeded": 429,
    "store_locked": 503,
    "model_unusable": 503,
    "gguf_refused": 503,
    "model_altered": 503,
    "model_not_approved": 403,
    "install_failed": 503,  # the models directory cannot be read
    "engine_failed": 500,
    "deadline_exceeded": 504,
    "upstream_failed": 502,
    "upstream_timeout": 504,
    "insufficient_memory": 507,
    "storage_full": 507,
    # The device needs somebody: no fault of the request, and no retry helps.
    "storage_failed": 503,
    "store_damaged": 503,
}


def status_of(error: EdgeAgentError) -> int:
    """The HTTP status of an error: by its code, else by its branch of the tree of errors."""
    if error.code in STATUS:
        return STATUS[error.code]
    if isinstance(error, BadRequest):
        return 400
    if isinstance(error, NotFound):
        return 404
    return 503 if isinstance(error, Unavailable) else 500


def encoded(
    error: EdgeAgentError, scope: Scope | None = None
) -> tuple[int, list[tuple[bytes, bytes]], bytes]:
    """Status, headers and body of an error answer, in the format of the path in `scope`. Transient errors
    say when to retry, others that retrying is useless."""
    status = status_of(error)
    dialect = dialect_of(str(scope["path"])) if scope is not None else OPENAI
    request_id = ""
    if scope is not None:
        context = context_of(scope)
        context.error, request_id = error, context.request_id
    error.message = public(error.message)
    body = msgspec.json.encode(dialect.error(error, status, request_id))
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    if isinstance(error, Unavailable):
        wait = min(MAX_RETRY_AFTER_S, max(1, math.ceil(error.retry_after_s or 1)))
        headers.append((b"retry-after", str(wait).encode()))
    else:
        headers.append((b"x-should-retry", b"false"))
    if isinstance(error, UnsupportedEncoding):
        headers.append((b"accept-encoding", b"gzip, deflate, zstd"))
    if status == 401:
        headers.append((b"www-authenticate", b'Bearer realm="edgeagent"'))
    return status, headers, body


def translate(exc: Exception) -> EdgeAgentError:
    """Our error for an exception of pydantic, of Litestar or of our own (serving/client_errors.py)."""
    if isinstance(exc, pydantic.ValidationError):
        return _from_validation(exc)
    if isinstance(exc, MethodNotAllowedException):
        return no_such_method()
    if isinstance(exc, NotFoundException):
        return nothing_here()
    if isinstance(exc, ValidationException):
        return _from_query(exc)
    if isinstance(exc, HTTPException) and exc.status_code < 500:
        return BadRequest(exc.detail or "The request is not valid.")
    return client_error(exc)


class MethodNotAllowed(BadRequest):
    code = "method_not_allowed"


STATUS[MethodNotAllowed.code] = 405


def no_such_method() -> MethodNotAllowed:
    return MethodNotAllowed(
        "This path does not accept that method: /schema shows which ones it does."
    )


def nothing_here() -> NotFound:
    return NotFound("There is nothing at this path: /schema shows every path.")


def _from_validation(exc: pydantic.ValidationError) -> EdgeAgentError:
    """The first error in a body, with the name of its field."""
    errors = exc.errors(include_url=False, include_context=False)
    first = min(errors, key=_is_beside)
    is_unknown = first["type"] == "extra_forbidden"
    # The last part is then a key of the client, whatever it looks like.
    *path, last = first["loc"] or ("",)
    names = [shortened(str(part)) for part in path if not _is_alternative(part)]
    if is_unknown or not _is_alternative(last):
        names.append(shortened(str(last)))
    param = ".".join(names) or None
    if is_unknown:
        import difflib  # takes 0.2 MB, for names that are wrong

        match = difflib.get_close_matches(names[-1], _fields(exc.title), n=1, cutoff=0.6)
        hint = f" did you mean `{match[0]}`?" if match else " leave it out."
        return InvalidParameter(f"Unknown parameter `{param or ''}`:{hint}", param=param)
    message = re.sub(r" or instance of \w+", "", first["msg"].removeprefix("Value error, "))
    message = message[:MAX_MESSAGE]
    where = f"`{param}`: " if param else ""
    return InvalidParameter(
        f"{where}{message[0].lower()}{message[1:]}{_shown(first)}.", param=param
    )


def _is_beside(error: Any) -> bool:
    """Whether an error is about an alternative type that the client did not mean."""
    is_constant = error["type"] == "literal_error" and isinstance(error["input"], dict | list)
    return is_constant or error["type"] in ("model_type", "string_type")


def _is_alternative(part: int | str) -> bool:
    """Whether a part of a path names one of several types of a field rather than a field: pydantic inserts
    `literal[...]`, `list[...]`, `constrained-str` and names of models."""
    if not isinstance(part, str):
        return False
    is_type = part in _TYPES or part.startswith(
        ("constrained-", "function-", "lax-or-strict", "tag-")
    )
    return is_type or "[" in part or part in _model_names()


_TYPES = frozenset({"str", "int", "float", "bool", "dict", "list", "none", "null", "nullable"})


@lru_cache(maxsize=1)
def _model_names() -> frozenset[str]:
    """The names of all models of bodies."""
    found, left = set(), [pydantic.BaseModel]
    while left:
        left += (below := left.pop().__subclasses__())
        found |= {one.__name__ for one in below if one.__module__.startswith("edgeagent.")}
    return frozenset(found)


def _from_query(exc: ValidationException) -> EdgeAgentError:
    """The first error in a parameter of the URL."""
    extra: Any = exc.extra
    first = extra[0] if isinstance(extra, list) and extra and isinstance(extra[0], dict) else {}
    param = first.get("key")
    if param is None:
        return BadRequest(exc.detail or "The request is not valid.")
    message = str(first.get("message", "is not valid"))
    return InvalidParameter(f"`{param}`: {message[0].lower()}{message[1:]}.", param=str(param))


def _shown(error: Any) -> str:
    value = error["input"]
    if error["type"] == "missing" or not isinstance(value, str | int | float | bool | None):
        return ""
    return f", got {value[:80]!r}" if isinstance(value, str) else f", got {shortened(str(value))}"


def shortened(text: str) -> str:
    """A name or value of a client, as it is quoted."""
    return text if len(text) <= MAX_QUOTED else text[:MAX_QUOTED] + "..."


_KNOWN_FIELDS: dict[str, list[str]] = {}


def register_fields(model: type[pydantic.BaseModel]) -> None:
    """Register the fields of a body, so that errors can suggest their names."""
    _KNOWN_FIELDS[model.__name__] = list(model.model_fields)


def _fields(title: str) -> list[str]:
    return _KNOWN_FIELDS.get(title, [])


def respond(request: Request[Any, Any, Any], exc: Exception) -> Response[bytes]:
    """Litestar's exception handler for every exception."""
    status, headers, body = encoded(translate(exc), request.scope)
    extra = {name.decode(): value.decode() for name, value in headers[2:]}
    return Response(body, status_code=status, media_type="application/json", headers=extra)
