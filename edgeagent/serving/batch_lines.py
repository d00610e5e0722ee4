"""The lines of a batch: requests as a client writes them, and their answers, in OpenAI's format. Pure."""

from __future__ import annotations

import codecs
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from edgeagent.errors import BadRequest, InvalidParameter
from edgeagent.serving import json_structure
from edgeagent.types.ids import new_id

ENDPOINTS = ("/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/v1/responses")
MAX_CUSTOM_ID = 256
MAX_ERRORS = 50  # that are shown of one file
ENVELOPE_BYTES = 4 << 10  # of a line around its body


class LineError(msgspec.Struct, frozen=True):
    """Why a file of requests is refused; `line` counts from 1."""

    code: str
    message: str
    line: int | None = None
    param: str | None = None


@dataclass(frozen=True)
class LineRequest:
    """One request of a batch. `body` is JSON."""

    custom_id: str
    body: bytes


def split(data: bytes, max_lines: int, max_body_bytes: int) -> list[str]:
    """The lines of a file, without empty ones. Raises: InvalidParameter.

    Lines are counted before objects are made of them: a file of line ends would become thirty times its size.
    """
    n_lines = data.count(b"\n") + 1
    if n_lines > 2 * max_lines + 1:  # an empty line between any two is fine
        raise _too_many(n_lines, max_lines)
    found = data.removeprefix(codecs.BOM_UTF8).split(b"\n")
    lines = [_text(line.removesuffix(b"\r"), max_body_bytes) for line in found if line.strip()]
    lines = [line for line in lines if line.strip()]
    if not lines:
        raise InvalidParameter("The file has no lines: write one JSON object a line.", param="file")
    if len(lines) > max_lines:
        raise _too_many(len(lines), max_lines)
    return lines


def _text(line: bytes, max_body_bytes: int) -> str:
    if len(line) > max_body_bytes + ENVELOPE_BYTES:
        raise InvalidParameter(
            f"The file has a line of {len(line)} bytes, the body of a request has at most {max_body_bytes}: "
            "shorten it, or raise http.max_body_bytes.",
            param="file",
        )
    try:
        return line.decode()
    except UnicodeDecodeError:
        raise InvalidParameter(
            "The file is not UTF-8: write one JSON object a line.", param="file"
        ) from None


def _too_many(n_lines: int, max_lines: int) -> InvalidParameter:
    return InvalidParameter(
        f"The file has {n_lines} lines, at most {max_lines} requests are taken: split it, or raise "
        "batch.max_requests.",
        param="file",
    )


def check(lines: Iterable[str], endpoint: str) -> list[LineError]:
    """What is wrong with the requests of a file; empty if they can be done. Shows MAX_ERRORS at most."""
    errors: list[LineError] = []
    seen: set[str] = set()
    for number, line in enumerate(lines, 1):
        found = _error(line, number, endpoint, seen)
        if found is not None:
            errors.append(found)
        if len(errors) == MAX_ERRORS:
            break
    return errors


def _error(line: str, number: int, endpoint: str, seen: set[str]) -> LineError | None:
    try:
        json_structure.check_text(line.encode())
        value = msgspec.json.decode(line)
    except BadRequest as exc:
        return LineError("invalid_request", exc.message, number)
    except (msgspec.DecodeError, RecursionError):
        return LineError("invalid_json_line", "The line is not valid JSON: correct it.", number)
    if not isinstance(value, dict):
        return LineError("invalid_json_line", "The line is no JSON object: write one.", number)
    custom_id, url, body = value.get("custom_id"), value.get("url"), value.get("body")
    if not isinstance(custom_id, str) or not 0 < len(custom_id) <= MAX_CUSTOM_ID:
        message = (
            f"`custom_id` must be a text of 1 to {MAX_CUSTOM_ID} characters: give each line one."
        )
        return LineError("missing_required_parameter", message, number, "custom_id")
    if custom_id in seen:
        message = f"`custom_id` {custom_id[:40]!r} comes twice: give each line its own."
        return LineError("duplicate_custom_id", message, number, "custom_id")
    seen.add(custom_id)
    if value.get("method") != "POST":
        return LineError("invalid_method", '`method` must be "POST".', number, "method")
    if url != endpoint:
        message = (
            f"`url` must be that of the batch, {endpoint}: send other requests in another batch."
        )
        return LineError("mismatched_url", message, number, "url")
    if not isinstance(body, dict):
        return LineError("missing_required_parameter", "`body` must be an object.", number, "body")
    try:
        json_structure.check_value(body)
        json_structure.check_value(value | {"body": None})
    except BadRequest as exc:
        return LineError("invalid_request", exc.message, number, "body")
    if body.get("stream") or body.get("background"):
        message = "A request of a batch cannot be streamed or in the background: leave that out."
        return LineError("invalid_request", message, number, "body")
    return None


class _Fields(msgspec.Struct):
    custom_id: str
    body: msgspec.Raw


def parsed(line: str) -> LineRequest:
    """The request of a line that `check` has found to be sound. No objects are made of the body."""
    fields = msgspec.json.decode(line, type=_Fields)
    return LineRequest(fields.custom_id, bytes(fields.body))


def answered(custom_id: str, status: int, request_id: str, body: bytes) -> str:
    """The line of an answer, be it a success or not. `body` is JSON, of which no objects are made."""
    flat = body.replace(b"\n", b" ").replace(b"\r", b" ")  # which JSON has between its values only
    response = {
        "status_code": status, "request_id": request_id, "body": msgspec.Raw(flat or b"null"),
    }  # fmt: skip
    return _line(custom_id, response, None)


def unanswered(custom_id: str, code: str, message: str) -> str:
    """The line of a request that was not done."""
    return _line(custom_id, None, {"code": code, "message": message})


def _line(custom_id: str, response: Any, error: Any) -> str:
    row = {"id": new_id("batch_req"), "custom_id": custom_id, "response": response, "error": error}
    return msgspec.json.encode(row).decode()


def joined(lines: Sequence[str]) -> bytes:
    """The content of a file."""
    return "".join(f"{line}\n" for line in lines).encode()
