"""Listening sockets: the daemon's own (bind early; listen once it can serve) or the service manager's."""

from __future__ import annotations

import socket

from edgeagent.errors import StartFailed

FIRST_INHERITED_FD = 3


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


def inherited_sockets(n_fds: int) -> list[socket.socket]:
    """The listening sockets that systemd opened for this process: its first `n_fds` (sd_listen_fds(3)).

    Raises: StartFailed for a descriptor that is no listening stream socket.
    """
    sockets = []
    for fd in range(FIRST_INHERITED_FD, FIRST_INHERITED_FD + n_fds):
        try:
            sock = socket.socket(fileno=fd)
        except OSError as exc:
            raise StartFailed(
                f"LISTEN_FDS names descriptor {fd}, which is no socket ({exc.strerror}): unset it, or let "
                "systemd set it."
            ) from exc
        if not _is_listening(sock):
            raise StartFailed(
                f"Descriptor {fd} from LISTEN_FDS is a socket that does not listen for streams: use "
                "ListenStream= in the socket unit."
            )
        sockets.append(sock)
    return sockets


def addresses(sockets: list[socket.socket]) -> list[str] | None:
    """The addresses that these sockets listen on; None without sockets. A Unix socket counts as loopback."""
    if not sockets:
        return None
    return [
        sock.getsockname()[0] if sock.family in (socket.AF_INET, socket.AF_INET6) else "localhost"
        for sock in sockets
    ]


def shown(sock: socket.socket) -> str:
    """The address of a socket as a client would write it."""
    if sock.family not in (socket.AF_INET, socket.AF_INET6):
        return f"unix:{sock.getsockname()}"
    host, port = sock.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _is_listening(sock: socket.socket) -> bool:
    return sock.type == socket.SOCK_STREAM and bool(
        sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    )


def _refused(host: str, port: int, exc: OSError) -> StartFailed:
    return StartFailed(
        f"Port {port} of {host} cannot be listened on: {exc.strerror or exc}. Is another edgeagent "
        "running? Choose another with --port."
    )
