"""What clients of httpx and httpx2 do by default in the tests; the official clients are among them."""

from __future__ import annotations

import functools
import importlib
import os
import ssl
from typing import Any

# These give up after 5 s, which a busy machine may need for an answer.
TIMEOUT_S = 60.0
# The clients of OpenAI and others use one or the other, by their version.
_LIBRARIES = ("httpx", "httpx2")


def adapt() -> None:
    """Wait longer, and read the certificate authorities once.

    Each client reads them, also for plain HTTP, for 20 ms of a core; the tests make thousands of clients.
    """
    for name in _LIBRARIES:
        try:
            library: Any = importlib.import_module(name)
        except ImportError:
            continue
        for part in ("connect", "read", "write", "pool"):
            setattr(library._config.DEFAULT_TIMEOUT_CONFIG, part, TIMEOUT_S)
        original = library.create_ssl_context
        library._transports.default.create_ssl_context = functools.partial(_context, original)


def _context(
    original: Any,
    verify: ssl.SSLContext | str | bool = True,
    cert: Any = None,
    trust_env: bool = True,
) -> Any:
    if verify is not True or cert is not None:
        return original(verify, cert, trust_env)
    names = ("SSL_CERT_FILE", "SSL_CERT_DIR") if trust_env else ()
    return _default_context(original, tuple(os.environ.get(name) for name in names))


@functools.cache
def _default_context(original: Any, authorities: tuple[str | None, ...]) -> Any:
    return original(trust_env=bool(authorities))
