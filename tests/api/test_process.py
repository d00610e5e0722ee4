"""What the daemon and its workers are as processes."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.conftest import KEY_FILE, TALES_CHAT, DaemonProcess, serving, wait_for


@pytest.fixture
def daemon(tales_daemon: DaemonProcess) -> DaemonProcess:
    """A daemon whose worker and helpers are all there."""
    return chatted_with(tales_daemon)


@pytest.fixture
def mortal(tales_dir: Path, tmp_path: Path) -> Iterator[DaemonProcess]:
    """The same, started as a person does, to be ended."""
    with serving(tales_dir, tmp_path / "state", is_forked=False) as daemon:
        yield chatted_with(daemon)


def chatted_with(daemon: DaemonProcess) -> DaemonProcess:
    with daemon.client() as client:
        client.chat.completions.create(
            model=TALES_CHAT, messages=[{"role": "user", "content": "Hi"}], max_tokens=1
        )
    return daemon


def status(pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def test_the_daemon_never_loads_what_belongs_in_a_worker(smollm_daemon: DaemonProcess):
    maps = Path(f"/proc/{smollm_daemon.pid}/maps").read_text()
    for library in ("libllama", "libggml", "numpy", "ctranslate2", "libav", ".gguf"):
        assert library not in maps
    # Other tests may have had it load other models too.
    workers = smollm_daemon.workers()
    assert workers
    for worker in workers:
        loaded = Path(f"/proc/{worker.pid}/maps").read_text()
        assert "libllama" in loaded, "the names are the right ones"


def test_worker_and_template_are_confined_and_die_first(daemon: DaemonProcess):
    (worker,) = daemon.workers()
    server, template = worker.children(recursive=True)
    assert "edgeagent.engine.process.fork_server" in server.cmdline()
    own = int(Path(f"/proc/{daemon.pid}/oom_score_adj").read_text())
    for process in (worker, server, template):
        assert status(process.pid)["Seccomp"] == "2"
        assert status(process.pid)["NoNewPrivs"] == "1"
        assert int(Path(f"/proc/{process.pid}/oom_score_adj").read_text()) > own
        assert process.net_connections(kind="inet") == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may look into processes that keep private")
def test_worker_and_helpers_hold_no_descriptor_but_their_own(daemon: DaemonProcess):
    for process in psutil.Process(daemon.pid).children(recursive=True):
        held = {fd.name: str(fd.readlink()) for fd in Path(f"/proc/{process.pid}/fd").iterdir()}
        assert held.pop("2") == str(daemon.log)
        for target in held.values():
            own = target == "/dev/null" or target.endswith(("/statm", ".gguf"))
            own |= target == f"/proc/{process.pid}/maps"  # of its own memory
            assert own or target.startswith(("socket:", "pipe:")), held
        sockets = [target for target in held.values() if target.startswith("socket:")]
        assert len(sockets) <= 2, "to the daemon, and to its fork server"
        assert not set(sockets) & sockets_of_clients(daemon), held
        told = Path(f"/proc/{process.pid}/environ").read_bytes()
        assert KEY_FILE.encode() not in told
        assert Path(f"/proc/{process.pid}/cwd").readlink() == Path("/")


def sockets_of_clients(daemon: DaemonProcess) -> set[str]:
    """What the daemon listens on and talks to clients by."""
    fds = [connection.fd for connection in psutil.Process(daemon.pid).net_connections("inet")]
    targets = set()
    for fd in fds:
        # A connection of the last request may be closed between the listing and the look.
        with contextlib.suppress(FileNotFoundError):
            targets.add(str(Path(f"/proc/{daemon.pid}/fd/{fd}").readlink()))
    assert targets, "the daemon listens at least"
    return targets


def test_a_killed_daemon_leaves_no_process_behind(mortal: DaemonProcess):
    family = psutil.Process(mortal.pid).children(recursive=True)
    assert len(family) == 3, "the worker, its fork server, and the template's process"
    mortal.process.kill()
    mortal.process.wait(timeout=60)
    assert psutil.wait_procs(family, timeout=60)[1] == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_daemon_that_is_told_to_stop_ends_its_workers_and_says_nothing_bad(
    mortal: DaemonProcess, number
):
    family = psutil.Process(mortal.pid).children(recursive=True)
    mortal.process.send_signal(number)
    assert mortal.process.wait(timeout=60) in (0, -number, 128 + number)
    wait_for(lambda: not any(process.is_running() for process in family))
    log = mortal.log.read_text()
    assert "Traceback" not in log
    assert "ERROR" not in log


def test_no_word_of_a_prompt_or_an_answer_is_logged(tales_dir: Path, tmp_path: Path):
    with serving(tales_dir, tmp_path / "state", log_level="debug") as daemon:
        with daemon.client() as client:
            answer = client.chat.completions.create(
                model=TALES_CHAT, messages=[{"role": "user", "content": "Say canaryword7731 twice."}],
                stop=["canarystop"], user="canaryuser", max_tokens=20,
            )  # fmt: skip
        wait_for(lambda: "n_generated=" in daemon.log.read_text())
        log = daemon.log.read_text()
    assert "canary" not in log
    assert (answer.choices[0].message.content or "x" * 99)[:30] not in log
