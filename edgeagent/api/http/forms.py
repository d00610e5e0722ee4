"""Forms with files, in memory only: Litestar's own would write larger files to the disk in the clear."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from io import BytesIO
from typing import Any

from litestar import Request
from multipart import MultipartError, PushMultipartParser

from edgeagent.api.http.body import pieces_beside
from edgeagent.api.http.request_context import context_of
from edgeagent.errors import BadRequest, InvalidParameter

MAX_FIELDS = 256
MAX_FIELD_BYTES = 256 << 10
# name, name[], name[key]
_NAME = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)(?:\[([A-Za-z0-9_]*)\])?")


@dataclass
class Form:
    """`fields` as clients write them in JSON; `files` by name, and what their clients call them (`names`)."""

    fields: dict[str, Any] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)

    def file(self, name: str) -> bytes:
        """Raises: InvalidParameter without it."""
        if name not in self.files:
            raise InvalidParameter(
                f"The form has no file {name!r}: with curl, send -F {name}=@FILE.", param=name
            )
        return self.files[name]


async def read_form(request: Request[Any, Any, Any], lists: frozenset[str]) -> Form:
    """The form of a request; fields named in `lists` are lists, however often they come.

    Raises: BadRequest, InvalidParameter; BodyTooLarge for what is unpacked beyond its bound.
    """
    body = context_of(request.scope).body
    assert body is not None, "api/http/auth.py reads every body"
    content_type = request.headers.get("content-type", "")
    return await pieces_beside(body, lambda pieces: parsed(pieces, content_type, lists))


def parsed(pieces: Iterable[bytes], content_type: str, lists: frozenset[str]) -> Form:
    """The form in a body. Raises: BadRequest for what is no form, InvalidParameter for a field that comes
    twice."""
    form = Form()
    try:
        for name, filename, value in _segments(pieces, _boundary(content_type)):
            if filename is not None:
                if name in form.files:
                    raise InvalidParameter(
                        f"The form has two files {name!r}: send one.", param=name
                    )
                form.files[name], form.names[name] = value, filename
            else:
                _put(form.fields, name, _text(name, value), lists)
    except MultipartError as exc:
        raise BadRequest(f"The body is no sound multipart form ({exc}): send it again.") from exc
    return form


def _boundary(content_type: str) -> str:
    match = re.search(r'boundary=(?:"([^"]{1,70})"|([^\s;,"]{1,70}))', content_type, re.IGNORECASE)
    if match is None:
        raise BadRequest("Content-Type names no boundary: send multipart/form-data; boundary=...")
    return match[1] or match[2]


def _segments(pieces: Iterable[bytes], boundary: str) -> Iterator[tuple[str, str | None, bytes]]:
    """Name, name of the file if it is one, and content of each part."""
    with PushMultipartParser(boundary, max_segment_count=MAX_FIELDS) as parser:
        name, filename = "", None
        # What was written to a BytesIO can be had as bytes without a copy.
        content = BytesIO()
        for event in (event for piece in pieces for event in parser.parse(piece)):
            if event is None:
                yield name, filename, content.getvalue()
            elif isinstance(event, bytes | bytearray):
                content.write(event)
            else:
                name, filename, content = event.name, event.filename, BytesIO()


def _text(name: str, value: bytes) -> str:
    if len(value) > MAX_FIELD_BYTES:
        raise InvalidParameter(
            f"`{name[:80]}` has {len(value)} bytes, at most {MAX_FIELD_BYTES} are read: shorten it.",
            param=name[:80],
        )
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError:
        raise InvalidParameter(
            f"`{name[:80]}` is not UTF-8: correct it.", param=name[:80]
        ) from None


def _put(fields: dict[str, Any], name: str, value: str, lists: frozenset[str]) -> None:
    match = _NAME.fullmatch(name)
    if match is None:
        raise InvalidParameter(f"The form has a field {name[:80]!r}, which has no sound name.")
    base, key = match[1], match[2]
    if key == "" or (key is None and base in lists):
        held = fields.setdefault(base, [])
        if not isinstance(held, list):
            raise _twice(base)
        held.extend(_listed(value) if key is None else [value])
    elif key is not None:
        held = fields.setdefault(base, {})
        if not isinstance(held, dict) or key in held:
            raise _twice(f"{base}[{key}]")
        held[key] = value
    elif base in fields:
        raise _twice(base)
    else:
        fields[base] = _value(value)


def _listed(value: str) -> list[Any]:
    """A list that came as one field: as JSON, or one item."""
    found = _value(value)
    return found if isinstance(found, list) else [value]


def _value(text: str) -> Any:
    """Objects and lists may come as JSON; everything else is text."""
    if text[:1] not in ("{", "["):
        return text
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def _twice(name: str) -> InvalidParameter:
    return InvalidParameter(f"The form has {name[:80]!r} twice: send it once.", param=name[:80])
