"""What is told to a service manager, without a daemon."""

from __future__ import annotations

import asyncio
import logging
import socket
from pathlib import Path

import pytest

from edgeagent.daemon.notify import ServiceManager
from edgeagent.settings import environment


def bound(address: str) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    sock.bind(f"\0{address[1:]}" if address.startswith("@") else address)
    sock.setblocking(False)
    return sock


async def received(sock: socket.socket) -> str:
    return (await asyncio.get_running_loop().sock_recv(sock, 4096)).decode()


@pytest.mark.parametrize("is_abstract", [False, True])
async def test_messages_are_lines_in_one_datagram(tmp_path: Path, is_abstract: bool):
    address = (
        f"@edgeagent-test-{tmp_path.name}-{id(tmp_path)}" if is_abstract else str(tmp_path / "s")
    )
    with bound(address) as sock:
        manager = ServiceManager(address)
        manager.ready("Ready,\nMAINPID=1")
        assert await received(sock) == "READY=1\nSTATUS=Ready, MAINPID=1", "no line can be forged"
        manager.stopping()
        assert (await received(sock)).startswith("STOPPING=1\n")
        await manager.close()
        await manager.close()


async def test_the_watchdog_is_fed_only_while_the_daemon_is_healthy(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    address = str(tmp_path / "s")
    health, asked = [True, True, False, False, True], asyncio.Event()

    def is_healthy() -> bool:
        if not health:
            asked.set()
            return False
        return health.pop(0)

    with bound(address) as sock, caplog.at_level(logging.ERROR):
        manager = ServiceManager(address, watchdog_s=0.03)
        manager.watch(is_healthy)
        await asked.wait()
        await manager.close()
        for _ in range(3):
            assert await received(sock) == "WATCHDOG=1"
        with pytest.raises(BlockingIOError):
            sock.recv(100)
    assert [record.getMessage().split()[0] for record in caplog.records] == [
        "watchdog_withheld"
    ] * 2


async def test_without_a_manager_nothing_is_told_and_one_that_is_gone_is_no_error(tmp_path: Path):
    for manager in (ServiceManager(None, 1.0), ServiceManager(str(tmp_path / "nobody"), None)):
        manager.ready("Ready")
        manager.watch(lambda: True)
        manager.stopping()
        await manager.close()


@pytest.mark.parametrize(
    ("pid", "interval", "expected"),
    [("7", "30000000", 30.0), ("8", "30000000", None), (None, "500000", 0.5), ("7", "0", None),
     ("7", "x", None), ("7", None, None)],
)  # fmt: skip
def test_the_watchdog_interval_is_for_the_process_it_names(monkeypatch, pid, interval, expected):
    for name, value in (("WATCHDOG_PID", pid), ("WATCHDOG_USEC", interval)):
        if value is None:
            monkeypatch.delenv(name, raising=False)
        else:
            monkeypatch.setenv(name, value)
    assert environment.watchdog_s(7) == expected
