"""Paths whose body is a form with a file in it: a bound of their own, and no pages that are not allowed.

A page can make its visitor's browser send such a form to any address without asking first. Browsers of today
say where it comes from (`csrf.py`); a form that shows any sign of an older one needs an allowed Origin.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from edgeagent.api.http.csrf import is_from_browser
from edgeagent.api.http.path_scopes import parts as parts_of
from edgeagent.errors import Forbidden, UnsupportedMediaType

FORM = b"multipart/form-data"
# A part of a file, as in tus. No page can send it without asking first.
PART = b"application/offset+octet-stream"


class Uploads:
    """The largest body of each path that takes a form, by the beginning of the path."""

    def __init__(self, bounds: Mapping[str, int], parts: Iterable[str] = ()) -> None:
        """`parts`: paths to which files are sent in parts by PATCH; `*` is any part of the path."""
        self._bounds = [(parts_of(path), most) for path, most in bounds.items()]
        self._parts = [parts_of(path) for path in parts]

    def max_bytes(self, path: str) -> int | None:
        """The bound of an upload; None for a path that takes none."""
        wanted = parts_of(path)
        return next((most for own, most in self._bounds if wanted[: len(own)] == own), None)

    def takes_parts(self, method: str, path: str) -> bool:
        wanted = parts_of(path)
        return method == "PATCH" and any(
            len(shape) == len(wanted)
            and all(own in ("*", part) for own, part in zip(shape, wanted, strict=True))
            for shape in self._parts
        )


def check_part(headers: Iterable[tuple[bytes, bytes]]) -> None:
    """Raises: UnsupportedMediaType."""
    kind, shown = _kind(list(headers))
    if kind != PART:
        raise UnsupportedMediaType(
            f"Content-Type is {shown}, {PART.decode()} is needed: with curl, add -H 'Content-Type: "
            f"{PART.decode()}' and --data-binary @FILE."
        )


def check_form(headers: Iterable[tuple[bytes, bytes]], origin: bytes | None) -> None:
    """`origin` is one that is allowed. Raises: UnsupportedMediaType, Forbidden."""
    headers = list(headers)
    kind, shown = _kind(headers)
    if kind != FORM:
        raise UnsupportedMediaType(
            f"Content-Type is {shown}, multipart/form-data is needed: with curl, send -F file=@FILE."
        )
    if origin is None and is_from_browser(headers):
        raise Forbidden(
            "A browser sends this form and names no Origin: add the page's to allowed_origins."
        )


def _kind(headers: list[tuple[bytes, bytes]]) -> tuple[bytes, str]:
    """The content type, empty unless there is exactly one, and how it is shown."""
    values = [value for name, value in headers if name == b"content-type"]
    kind = values[0].split(b";")[0].strip().lower() if len(values) == 1 else b""
    return kind, repr(values[0].decode("latin-1")[:80] if values else "missing")
