"""Which addresses a daemon may listen on: those that others reach need keys and no plain HTTP."""

from __future__ import annotations

from edgeagent.errors import StartFailed
from edgeagent.settings import Settings


def refuse_open_bind(host: str, settings: Settings, *, has_key: bool) -> None:
    """Raises: StartFailed for an address that others can reach, without keys or in the clear."""
    if not has_key:
        raise StartFailed(
            f"Host {host} can be reached by others and no live API key protects it: make one with "
            "`edgeagent keys create`, or use 127.0.0.1."
        )
    if not settings.http.allow_plain_http:
        raise StartFailed(
            f"Host {host} can be reached by others, and this daemon speaks plain HTTP, in which keys "
            "can be read on the way: put a TLS proxy before it and keep 127.0.0.1, or, where the "
            "network itself is trusted, set http.allow_plain_http = true."
        )
