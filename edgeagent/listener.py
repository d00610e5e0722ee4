"""What a daemon listens on: a socket had at once, and listened to when there is somebody to answer."""

from __future__ import annotations

import ipaddress
import socket
from contextlib import suppress

from edgeagent.errors import StartFailed


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach the address."""
    if host == "localhost":
        return True
    with suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return False


def bind(host: str, port: int) -> socket.socket:
    """A socket of this address. Raises: StartFailed when it cannot be had."""
    sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((host, port))
    except OSError as exc:
        sock.close()
        raise _refused(host, port, exc) from exc
    return sock


def listen(sock: socket.socket) -> None:
    """From now on clients can connect. Raises: StartFailed: another process was faster."""
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
