"""What is connected to whom, by a tree of /proc that the test writes, and by a real daemon."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any

import pytest

from edgeagent.cli.shared.egress import Socket, egress, processes_of, running_daemon
from edgeagent.cli.shared.egress_table import upstream_places
from edgeagent.settings.upstreams import UpstreamSettings
from tests.commands import run_here
from tests.conftest import serving

HEAD = (
    "  sl  local_address rem_address st tx_queue rx_queue tr tm->when retrnsmt uid timeout inode\n"
)
DEV = "Inter-| Receive\n face |bytes\n    lo: 0 0\n"


def row(local: str, remote: str, state: str, inode: int) -> str:
    return f"   0: {local} {remote} {state} 0:0 0:0 0 1000 0 {inode} 1\n"


def process(
    proc: Path, pid: int, parent: int, command: str, rows: str = "", inodes: tuple[int, ...] = (),
    *, is_confined: bool = False, dev: str = DEV,
) -> None:  # fmt: skip
    folder = proc / str(pid)
    (folder / "fd").mkdir(parents=True)
    (folder / "net").mkdir()
    for number, inode in enumerate(inodes):
        (folder / "fd" / str(number)).symlink_to(f"socket:[{inode}]")
    (folder / "net" / "tcp").write_text(HEAD + rows)
    (folder / "net" / "dev").write_text(dev)
    (folder / "cmdline").write_bytes(b"\0".join(command.encode().split()) + b"\0")
    (folder / "stat").write_text(f"{pid} (a (b) c) S {parent} 1 1")
    state = "NoNewPrivs:\t1\nSeccomp:\t2\n" if is_confined else "NoNewPrivs:\t0\nSeccomp:\t0\n"
    (folder / "status").write_text(state)


def test_sockets_are_read_and_strangers_left_out(tmp_path: Path):
    rows = (
        row("0100007F:2124", "00000000:0000", "0A", 11)  # listens on 8484
        + row("0100007F:2124", "0100007F:D431", "01", 12)  # a client here
        + row("0A00A8C0:2124", "0500A8C0:D431", "01", 13)  # a client from the network
        + row("0A00A8C0:C000", "08080808:01BB", "01", 14)  # another process's
    )
    process(tmp_path, 10, 1, "python -m edgeagent serve", rows, (11, 12, 13))
    process(tmp_path, 11, 10, "python -m edgeagent.engine.worker 5", is_confined=True)
    process(tmp_path, 12, 1, "curl https://example.org", rows, (14,))
    found = processes_of(10, tmp_path)
    assert [(p.pid, p.name, p.is_confined) for p in found] == [
        (10, "daemon", False), (11, "edgeagent.engine.worker", True),
    ]  # fmt: skip
    assert found[0].sockets[0] == Socket("tcp", "127.0.0.1", 8484, None, 0, True)
    assert found[0].sockets[2].shown() == "tcp 192.168.0.10:8484 with 192.168.0.5:54321"
    assert not found[0].has_network and egress(found) == []


def test_a_connection_that_nobody_made_to_the_daemon_is_egress(tmp_path: Path):
    rows = row("0100007F:2124", "00000000:0000", "0A", 11)
    process(tmp_path, 10, 1, "python -m edgeagent serve", rows, (11,))
    rows = row("0A00A8C0:C000", "08080808:01BB", "01", 12)
    dev = DEV + "  eth0: 0 0\n"
    process(tmp_path, 11, 10, "python -m edgeagent.engine.worker 5", rows, (12,), dev=dev)
    found = processes_of(10, tmp_path)
    ((who, what),) = egress(found)
    assert who.pid == 11 and what.peer == "8.8.8.8" and who.has_network


def test_mapped_addresses_are_those_of_ipv4(tmp_path: Path):
    rows = row(f"{'0' * 16}FFFF00000100007F:2124", f"{'0' * 16}FFFF00000100007F:0001", "01", 11)
    process(tmp_path, 10, 1, "python -m edgeagent serve", "", (11,))
    (tmp_path / "10" / "net" / "tcp6").write_text(HEAD + rows)
    ((daemon),) = processes_of(10, tmp_path)
    assert daemon.sockets[0].peer == "127.0.0.1" and not daemon.sockets[0].leads_outside


@pytest.mark.parametrize("text", ["", "x", "999999999"])
def test_a_lock_file_without_a_daemon_names_none(tmp_path: Path, text: str):
    lock = tmp_path / "daemon.lock"
    assert running_daemon(lock) is None
    lock.write_text(text)
    assert running_daemon(lock) is None


def test_a_real_daemon_is_connected_to_its_clients_only(tales_dir: Path, tmp_path: Path):
    upstream = {
        "name": "basement", "url": "https://10.0.0.5:8443/v1", "models": {"big": "x"}, "keys": ["ann"]
    }  # fmt: skip
    settings: dict[str, Any] = {"routing.upstreams": [upstream]}
    with serving(tales_dir, tmp_path / "state", is_forked=False, **settings) as served:
        served.wait_until_ready()
        host, port = served.url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port))):
            place = ("--state-dir", served.state_dir, "--config", served.config)
            done = run_here("doctor", "--egress", "--json", *place)
        assert done.returncode == 0, done.stderr
        tree = json.loads(done.stdout)
        daemon, *workers = tree["processes"]
        assert daemon["pid"] == served.pid and tree["egress"] == []
        assert any(s["is_listening"] and s["port"] == int(port) for s in daemon["sockets"])
        assert workers and all(worker["sockets"] == [] for worker in workers)
        # Nothing is connected before a request that may be sent, and no HTTP client is loaded.
        assert tree["upstreams"] == [
            {"name": "basement", "url": upstream["url"], "models": ["big"], "keys": ["ann"],
             "privacy": ["any"]}
        ]  # fmt: skip
        assert tree["to_upstreams"] == []
        told = run_here("doctor", "--egress", *place).stdout
        assert "Upstream basement (https://10.0.0.5:8443/v1) answers for big" in told


def test_addresses_of_upstreams_are_allowed_and_names_are_not_looked_up():
    def table(url: str) -> UpstreamSettings:
        return UpstreamSettings(name="a", url=url, models={"big": "x"}, keys=["*"])

    urls = ("https://10.0.0.5/v1", "https://[fd00::1]:8443/v1", "https://engine.example/v1")
    assert upstream_places(map(table, urls)) == {("10.0.0.5", 443), ("fd00::1", 8443)}


def test_without_a_daemon_there_is_a_way_out(tmp_path: Path):
    done = run_here("doctor", "--egress", "--state-dir", tmp_path)
    assert done.returncode == 2 and "No daemon runs" in done.stderr
