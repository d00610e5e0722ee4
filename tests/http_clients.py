"""What the clients of httpx (the official ones are among them) do by default in the tests."""

from __future__ import annotations

import functools
import os
import ssl
from typing import Any

import httpx

# httpx gives up after 5 s, which a busy machine may need for an answer.
TIMEOUT_S = 60.0


def adapt() -> None:
    """Wait longer, and read the certificate authorities once.

    Each client reads them, also for plain HTTP, for 20 ms of a core; the tests make thousands of clients.
    """
    for part in ("connect", "read", "write", "pool"):
        setattr(httpx._config.DEFAULT_TIMEOUT_CONFIG, part, TIMEOUT_S)
    httpx._transports.default.create_ssl_context = _shared_context  # type: ignore[attr-defined]


def _shared_context(
    verify: ssl.SSLContext | str | bool = True, cert: Any = None, trust_env: bool = True
) -> ssl.SSLContext:
    if verify is not True or cert is not None:
        return httpx.create_ssl_context(verify, cert, trust_env)
    names = ("SSL_CERT_FILE", "SSL_CERT_DIR") if trust_env else ()
    return _default_context(tuple(os.environ.get(name) for name in names))


@functools.cache
def _default_context(authorities: tuple[str | None, ...]) -> ssl.SSLContext:
    return httpx.create_ssl_context(trust_env=bool(authorities))
