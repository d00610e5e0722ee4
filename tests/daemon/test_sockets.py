"""Sockets that a service manager hands over, and what the daemon tells it."""

from __future__ import annotations

import os
import re
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from edgeagent.store.store_key import make_key_file
from tests.conftest import KEY_FILE
from tests.daemon import managed

pytestmark = pytest.mark.process


def test_a_socket_from_systemd_is_served(tmp_path: Path):
    with (
        socket.create_server(("127.0.0.1", 0)) as sock,
        socket.create_server(("::1", 0), family=socket.AF_INET6) as second,
        socket.create_server(str(tmp_path / "api.sock"), family=socket.AF_UNIX) as third,
    ):
        process = managed.start([sock, second, third], tmp_path)
        port, other = sock.getsockname()[1], second.getsockname()[1]
        try:
            # The connection waits in the socket's queue until the daemon is up.
            reply = httpx.get(f"http://127.0.0.1:{port}/health", timeout=30)
            assert reply.json()["status"] == "ok"
            assert httpx.get(f"http://[::1]:{other}/health").status_code == 200
            local = httpx.HTTPTransport(uds=str(tmp_path / "api.sock"))
            with httpx.Client(transport=local, base_url="http://localhost") as client:
                assert (
                    client.get("/health").status_code == client.get("/v1/models").status_code == 200
                )
        finally:
            process.send_signal(signal.SIGTERM)
            out, _ = process.communicate(timeout=60)
    assert re.search(rf"127\.0\.0\.1:{port}\b", out) and f"http://[::1]:{other}" in out


def test_an_inherited_socket_that_others_can_reach_is_refused(tmp_path: Path):
    with socket.create_server(("0.0.0.0", 0)) as sock:
        process = managed.start([sock], tmp_path)
        _, err = process.communicate(timeout=30)
    assert process.returncode == 2
    assert "0.0.0.0" in err and "Traceback" not in err


def test_an_inherited_descriptor_that_cannot_be_served_is_a_clear_error(tmp_path: Path):
    with (tmp_path / "file").open("w") as file, socket.socket(socket.AF_INET) as silent:
        silent.bind(("127.0.0.1", 0))
        for given, reason in ((file, "is no socket"), (silent, "does not listen")):
            process = managed.start([given], tmp_path)  # type: ignore[list-item]
            _, err = process.communicate(timeout=30)
            assert process.returncode == 2
            assert len(err.splitlines()) == 1 and reason in err and "LISTEN_FDS" in err


@contextmanager
def notification_socket(path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(str(path))
        sock.settimeout(30)
        yield sock


def messages_until(sock: socket.socket, wanted: str) -> list[str]:
    found: list[str] = []
    while wanted not in found:
        found += sock.recv(4096).decode().splitlines()
    return found


def test_a_service_manager_hears_of_the_start_the_life_and_the_end(tmp_path: Path):
    """Ready once connections are accepted, then alive in intervals, then stopping; with a credential as
    the key of the store."""
    credentials = tmp_path / "credentials"
    key = credentials / "edgeagent.key"
    make_key_file(key)
    unused_key = Path(os.environ[KEY_FILE]).with_name("unused.key")
    state_dir = tmp_path / "state"
    state_dir.mkdir()
    with (
        notification_socket(tmp_path / "notify") as manager,
        socket.create_server(("127.0.0.1", 0)) as sock,
    ):
        process = managed.start(
            [sock], state_dir, NOTIFY_SOCKET=str(tmp_path / "notify"), WATCHDOG_USEC="300000",
            CREDENTIALS_DIRECTORY=str(credentials), **{KEY_FILE: str(unused_key)},
        )  # fmt: skip
        try:
            begun = messages_until(manager, "WATCHDOG=1")
            assert begun.index("READY=1") < begun.index("WATCHDOG=1")
            assert messages_until(manager, "WATCHDOG=1"), "it goes on reporting"
            url = f"http://127.0.0.1:{sock.getsockname()[1]}/health"
            assert httpx.get(url).status_code == 200
            process.send_signal(signal.SIGTERM)
            messages_until(manager, "STOPPING=1")
        finally:
            process.terminate()
            process.communicate(timeout=60)
    assert process.returncode in (0, -signal.SIGTERM), "either is a clean end for systemd"
    assert (state_dir / "store" / "edgeagent.db").exists() and not unused_key.exists()


def test_a_user_without_a_home_directory_gets_the_directories_of_the_system(monkeypatch):
    from edgeagent.settings import environment

    monkeypatch.setattr(os, "geteuid", lambda: 64548)
    for name in ("XDG_STATE_HOME", "XDG_CONFIG_HOME"):
        monkeypatch.delenv(name, raising=False)

    def no_home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", no_home)
    assert environment.default_state_dir() == Path("/var/lib/edgeagent")
    assert environment.default_key_file() == Path("/etc/edgeagent/store.key")
