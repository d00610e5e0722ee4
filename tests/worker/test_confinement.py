"""What a confined process cannot do any more, and what it still can. Each in a process of its own."""

from __future__ import annotations

import ctypes
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgeagent.worker import landlock
from edgeagent.worker.sandbox_probe import gather
from tests.worker.attempts import REFUSED

ROOT = Path(__file__).resolve().parents[2]
HAS_LANDLOCK = landlock.version(ctypes.CDLL(None, use_errno=True)) > 0
# Without Landlock files can be read; nothing in /proc of a process that keeps private.
READINGS = {
    "read the store key", "read the database", "list the state directory", "list the models directory",
    "read /etc/passwd", "read another file of this user", "list /proc",
    "list the descriptors of the daemon",  # their numbers, to root without capabilities
}  # fmt: skip
PRIVATE = """
import sys, time
from edgeagent.worker.non_dumpable import keep_private
keep_private()
print("private", flush=True)
sys.stdin.read()
"""


@pytest.fixture(scope="module")
def targets(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A key, a database, directories, and two processes that keep private."""
    base = tmp_path_factory.mktemp("reach")
    for name in ("state", "models"):
        (base / name).mkdir()
    for name in ("key", "state/db", "other"):
        (base / name).write_text("secret")
    others = [
        subprocess.Popen(
            [sys.executable, "-c", PRIVATE], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        for _ in range(2)
    ]
    for other in others:
        assert other.stdout is not None
        assert other.stdout.readline() == b"private\n"
    (base / "targets.json").write_text(
        json.dumps({
            "key": str(base / "key"), "database": str(base / "state" / "db"), "state": str(base / "state"),
            "models": str(base / "models"), "other": str(base / "other"),
            "daemon": others[0].pid, "sibling": others[1].pid,
        })
    )  # fmt: skip
    yield base / "targets.json"
    for other in others:
        other.communicate(timeout=60)


def outcomes(targets: Path, *flags: str) -> dict[str, str]:
    done = subprocess.run(
        [sys.executable, "-m", "tests.worker.attempts", str(targets), *flags],
        capture_output=True, text=True, timeout=60, check=True, cwd=ROOT,
    )  # fmt: skip
    found: dict[str, str] = json.loads(done.stdout)
    assert len(found) > 80
    return found


@pytest.mark.skipif(not HAS_LANDLOCK, reason="this kernel has no Landlock")
def test_nothing_that_a_worker_might_try_succeeds(targets):
    found = outcomes(targets)
    assert {what: outcome for what, outcome in found.items() if outcome not in REFUSED} == {}


def test_without_landlock_files_can_be_read_and_nothing_else(targets):
    found = outcomes(targets, "--without-landlock")
    assert {what for what, outcome in found.items() if outcome not in REFUSED} <= READINGS


ALIVE = """
import os, sys, threading
from edgeagent.worker import confinement
layers = confinement.enter(read=[sys.argv[1]])
assert open(sys.argv[1]).read() == "given"
import wave, ctypes.util, xml.dom.minidom  # modules that nothing has loaded yet
done = []
thread = threading.Thread(target=lambda: done.append(confinement.rss_bytes() > 1 << 20))
thread.start()
thread.join()
assert done == [True]
assert os.cpu_count() and os.urandom(4)
os.kill(os.getpid(), 0)
assert layers.n_threads == 1
"""


def test_what_a_worker_needs_still_works(tmp_path: Path):
    given = tmp_path / "model.gguf"
    given.write_text("given")
    done = subprocess.run(
        [sys.executable, "-c", ALIVE, str(given)],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 0, done.stderr


CHECKOUT = """
import sys
sys.path.insert(0, sys.argv[1])
from edgeagent.worker import confinement
import one_of_ours
confinement.enter()
assert open(one_of_ours.__file__).read()
try:
    open(sys.argv[1] + "/store.key")
except PermissionError:
    sys.exit(0)
sys.exit("a file beside a package could be read")
"""


@pytest.mark.skipif(not HAS_LANDLOCK, reason="this kernel has no Landlock")
def test_a_directory_of_modules_is_readable_for_its_modules_only(tmp_path: Path):
    (tmp_path / "one_of_ours.py").write_text("x = 1\n")
    (tmp_path / "store.key").write_text("secret")
    done = subprocess.run(
        [sys.executable, "-c", CHECKOUT, str(tmp_path)], capture_output=True, text=True, timeout=30,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


@pytest.mark.process
def test_the_probe_of_doctor_says_what_holds():
    evidence = gather()
    assert evidence is not None
    assert evidence.layers.seccomp
    assert evidence.layers.not_dumpable
    assert evidence.layers.no_new_privs
    assert bool(evidence.layers.landlock) == HAS_LANDLOCK
    assert evidence.layers.missing.keys() == ({"landlock"} if not HAS_LANDLOCK else set())
    assert set(evidence.reached) <= {"read a file of this user"}
    assert not HAS_LANDLOCK or not evidence.reached


def test_memory_of_a_private_process_is_closed_to_its_user(targets):
    pid = json.loads(targets.read_text())["daemon"]
    # Files in /proc of a process that can be dumped belong to its user.
    assert Path(f"/proc/{pid}/mem").stat().st_uid == 0
    if os.geteuid() != 0:
        with pytest.raises(PermissionError):
            Path(f"/proc/{pid}/environ").read_bytes()
