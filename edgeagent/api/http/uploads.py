"""Paths whose body is a form with a file in it: a bound of their own, and no pages that are not allowed.

A page can make its visitor's browser send such a form to any address without asking first. Browsers of today
say where it comes from (`csrf.py`); a form that shows any sign of an older one needs an allowed Origin.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from edgeagent.api.http.csrf import is_from_browser
from edgeagent.errors import Forbidden, UnsupportedMediaType

FORM = b"multipart/form-data"


class Uploads:
    """The largest body of each path that takes a form, by the beginning of the path."""

    def __init__(self, bounds: Mapping[str, int]) -> None:
        self._bounds = [([p for p in path.split("/") if p], most) for path, most in bounds.items()]

    def max_bytes(self, path: str) -> int | None:
        """The bound of an upload; None for a path that takes none."""
        parts = [part for part in path.split("/") if part]
        return next((most for own, most in self._bounds if parts[: len(own)] == own), None)


def check_form(headers: Iterable[tuple[bytes, bytes]], origin: bytes | None) -> None:
    """`origin` is one that is allowed. Raises: UnsupportedMediaType, Forbidden."""
    headers = list(headers)
    values = [value for name, value in headers if name == b"content-type"]
    kind = values[0].split(b";")[0].strip().lower() if len(values) == 1 else b""
    if kind != FORM:
        shown = values[0].decode("latin-1")[:80] if values else "missing"
        raise UnsupportedMediaType(
            f"Content-Type is {shown!r}, multipart/form-data is needed: with curl, send -F file=@FILE."
        )
    if origin is None and is_from_browser(headers):
        raise Forbidden(
            "A browser sends this form and names no Origin: add the page's to allowed_origins."
        )
