"""Protection against requests that a web page makes its visitor's browser send (cross-site request
forgery).

1. a browser tells where a request comes from (Sec-Fetch-Site): another site or port without an allowed
   Origin may read, but not change anything
2. forms cannot send JSON, and scripts only after a preflight: it is required everywhere except below
   /api, where Ollama accepts what `curl -d` sends
3. below /api the type may be missing from this machine, with an allowed Origin, or without any sign of a
   browser: forms of old browsers send neither Origin nor Sec-Fetch, but they send User-Agent and
   Accept-Language, which a page cannot suppress
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

from litestar.types import HTTPScope

from edgeagent.api.http.dialects import OLLAMA, dialect_of
from edgeagent.errors import Forbidden

Headers = Iterable[tuple[bytes, bytes]]

_SAFE = ("GET", "HEAD", "OPTIONS")
# Headers that browsers add to the requests of a page.
_BROWSERS_OWN = (b"referer", b"cookie", b"accept-language")
_BROWSER_NAMES = (b"mozilla/", b"opera/")


def check_site(method: str, headers: Headers, origin: bytes | None) -> None:
    """`origin` is an allowed one. Raises: Forbidden for a change that another site requests."""
    if method in _SAFE or origin is not None:
        return
    for name, value in headers:
        if name == b"sec-fetch-site" and value.strip().lower() not in (b"same-origin", b"none"):
            raise Forbidden(
                f"This request comes from a page of another site ({ascii(value[:40])[1:]}) and "
                "has no allowed Origin: add the origin of that page to allowed_origins."
            )


def may_be_untyped(scope: HTTPScope, origin: bytes | None) -> bool:
    """Whether a body counts as JSON whatever its Content-Type is."""
    if dialect_of(scope["path"]) is not OLLAMA or not _is_local(scope):
        return False
    return origin is not None or not is_from_browser(scope["headers"])


def is_from_browser(headers: Headers) -> bool:
    """Whether a request has a header that browsers add and other programs do not."""
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
