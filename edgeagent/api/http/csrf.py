"""Requests that a web page makes its visitor's browser send (cross-site request forgery).

1. a browser says where a request comes from (Sec-Fetch-Site): from another site or port, without an
   Origin that is allowed, it may read and not change
2. JSON cannot be sent by a form, and by a script only after a preflight: it is needed everywhere but below
   /api, where Ollama takes what `curl -d` sends
3. there it need not say so from this machine, with an allowed Origin or without any sign of a browser:
   forms of old ones send neither Origin nor Sec-Fetch, but name themselves, and their language, which
   no page can keep them from
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

from litestar.types import HTTPScope

from edgeagent.api.http.dialects import OLLAMA, dialect_of
from edgeagent.errors import Forbidden

Headers = Iterable[tuple[bytes, bytes]]

_SAFE = ("GET", "HEAD", "OPTIONS")
# What browsers add by themselves to the requests of a page.
_BROWSERS_OWN = (b"referer", b"cookie", b"accept-language")
_BROWSER_NAMES = (b"mozilla/", b"opera/")


def check_site(method: str, headers: Headers, origin: bytes | None) -> None:
    """`origin` is one that is allowed. Raises: Forbidden for a change that another site asks for."""
    if method in _SAFE or origin is not None:
        return
    for name, value in headers:
        if name == b"sec-fetch-site" and value.strip().lower() not in (b"same-origin", b"none"):
            raise Forbidden(
                f"A browser says that this request comes from another site ({ascii(value[:40])[1:]}) and "
                "names no Origin: add the page's to allowed_origins."
            )


def may_be_untyped(scope: HTTPScope, origin: bytes | None) -> bool:
    """Whether a body counts as JSON whatever its Content-Type says."""
    if dialect_of(scope["path"]) is not OLLAMA or not _is_local(scope):
        return False
    return origin is not None or not is_from_browser(scope["headers"])


def is_from_browser(headers: Headers) -> bool:
    """Whether a request has anything that browsers add and other programs do not."""
    for name, value in headers:
        if name in _BROWSERS_OWN or name.startswith((b"sec-fetch-", b"sec-ch-")):
            return True
        if name == b"user-agent" and value.strip().lower().startswith(_BROWSER_NAMES):
            return True
    return False


def _is_local(scope: HTTPScope) -> bool:
    client = scope.get("client")
    try:
        address = ipaddress.ip_address(client[0]) if client else None
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return address is not None and (mapped or address).is_loopback
