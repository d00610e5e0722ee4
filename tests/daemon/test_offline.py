"""The daemon serves in a network that has nothing but loopback, and tries to reach nobody."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import clean_environment

APART = ("unshare", "--user", "--map-root-user", "--net")


@pytest.fixture
def unshare() -> str:
    """The command that gives a process a network of its own; skips where the kernel has none for users."""
    found = shutil.which("unshare")
    if found is None:
        pytest.skip("unshare is not installed")
    tried = subprocess.run([*APART, "true"], capture_output=True, text=True, timeout=20)
    if tried.returncode != 0:
        pytest.skip(f"no network namespace for this user: {tried.stderr.strip()}")
    return found


def test_a_daemon_without_any_network_answers_and_tries_to_reach_nobody(
    stories_dir: Path, tmp_path: Path, unshare: str
):
    done = subprocess.run(
        [*APART, sys.executable, "-m", "tests.daemon.offline", stories_dir, tmp_path / "state"],
        capture_output=True, text=True, timeout=150, env=clean_environment(),
        cwd=Path(__file__).parents[2],
    )  # fmt: skip
    log = tmp_path / "state.log"
    assert done.returncode == 0, (done.stderr, log.read_text() if log.exists() else "")
    told = json.loads(done.stdout)
    # Neither a model of the catalog that is not installed nor Ollama's pull fetches anything.
    assert told["statuses"][:5] == [200] * 5
    assert all(400 <= status < 500 for status in told["statuses"][5:7]), told
    assert told["statuses"][7] == 200
    served = told["served"]
    assert served["IpOutNoRoutes"] == served["Ip6OutNoRoutes"] == 0, told
    assert served["UdpOutDatagrams"] == served["Udp6OutDatagrams"] == 0, told
    # Every connection in this network was made by the client of the test.
    assert served["TcpActiveOpens"] <= told["n_opened"], told
    assert told["attempt"]["IpOutNoRoutes"] == 2  # the counter sees what it is there to see
