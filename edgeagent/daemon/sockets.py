"""Listening sockets of the daemon: bind early; listen once the daemon can serve."""

from __future__ import annotations

import socket

from edgeagent.errors import StartFailed


def bind(host: str, port: int) -> socket.socket:
    """Return a socket bound to this address. Raises: StartFailed when the address cannot be bound."""
    sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((host, port))
    except OSError as exc:
        sock.close()
        raise _refused(host, port, exc) from exc
    return sock


def listen(sock: socket.socket) -> None:
    """Accept connections from now on. Raises: StartFailed when another process listens already."""
    try:
        sock.listen(256)
    except OSError as exc:
        host, port = sock.getsockname()[:2]
        sock.close()
        raise _refused(host, port, exc) from exc


def _refused(host: str, port: int, exc: OSError) -> StartFailed:
    return StartFailed(
        f"Port {port} of {host} cannot be listened on: {exc.strerror or exc}. Is another edgeagent "
        "running? Choose another with --port."
    )
