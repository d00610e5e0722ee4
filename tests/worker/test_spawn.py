"""Child processes load our code and nothing that lies in the current directory."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from edgeagent.settings.environment import API_KEY
from edgeagent.worker import spawn
from edgeagent.worker.process_environment import worker_environment
from tests.conftest import clean_environment

# What children and commands import early, and what a stick may be called by.
SHADOWED = ("resource", "json", "msgspec", "click", "numpy", "jinja2", "socket", "hashlib")
INSPECT = """
import sys
from pathlib import Path
from edgeagent.catalog.gguf.inspection import inspect_apart
print(inspect_apart(Path(sys.argv[1])).architecture)
"""


@pytest.fixture
def stick(tmp_path: Path) -> Path:
    """A directory with files named like modules; each leaves a mark when it is imported."""
    folder = tmp_path / "stick"
    folder.mkdir()
    for name in SHADOWED:
        (folder / f"{name}.py").write_text(f"open({str(folder / 'mark')!r}, 'a').write({name!r})\n")
    return folder


def test_children_import_nothing_from_the_current_directory(stick: Path, stories: Path):
    (stick / "tale.gguf").write_bytes(stories.read_bytes())
    done = subprocess.run(
        [sys.executable, "-P", "-c", INSPECT, "tale.gguf"], cwd=stick, capture_output=True, text=True,
        timeout=30, check=False, env=clean_environment(),
    )  # fmt: skip
    assert done.stdout == "llama\n", done.stderr
    assert not (stick / "mark").exists()


def test_the_command_itself_imports_nothing_from_there(stick: Path):
    done = subprocess.run(
        [sys.executable, "-m", "edgeagent", "--version"], cwd=stick, capture_output=True, text=True,
        timeout=30, check=False, env=clean_environment(),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert not (stick / "mark").exists()


def test_workers_are_told_what_they_need_and_no_secret(monkeypatch):
    secrets = (
        "EDGEAGENT_API_KEY", "EDGEAGENT_STORE__KEY_FILE", "HF_TOKEN", "CREDENTIALS_DIRECTORY",
        "AWS_SECRET_ACCESS_KEY", "NOTIFY_SOCKET", "LISTEN_FDS", "SSH_AUTH_SOCK", "PYTHONSTARTUP",
    )  # fmt: skip
    for name in secrets:
        monkeypatch.setenv(name, "secret")
    for name in ("LANG", "LC_ALL", "OMP_PROC_BIND", "LD_LIBRARY_PATH"):
        monkeypatch.setenv(name, "kept")
    told = worker_environment()
    assert "secret" not in told.values()
    assert {name for name, value in told.items() if value == "kept"} == {
        "LANG", "LC_ALL", "OMP_PROC_BIND", "LD_LIBRARY_PATH",
    }  # fmt: skip


def test_a_daemon_that_a_command_starts_gets_its_settings_and_not_the_key_of_the_client(
    monkeypatch,
):
    monkeypatch.setenv(API_KEY, "ea_secret")
    monkeypatch.setenv("EDGEAGENT_STATE_DIR", "/srv/state")
    told = spawn.environment_of_ours()
    assert API_KEY not in told and told["EDGEAGENT_STATE_DIR"] == "/srv/state"


def test_threads_of_workers_give_up_their_core_soon_unless_a_variable_says_how_they_wait(
    monkeypatch,
):
    for name in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY"):
        monkeypatch.delenv(name, raising=False)
    soon = int(worker_environment()["GOMP_SPINCOUNT"])
    assert 1_000 <= soon <= int(worker_environment(True)["GOMP_SPINCOUNT"]) <= 300_000
    monkeypatch.setenv("OMP_WAIT_POLICY", "active")
    assert "GOMP_SPINCOUNT" not in worker_environment(True)
    monkeypatch.setenv("GOMP_SPINCOUNT", "7")
    assert worker_environment()["GOMP_SPINCOUNT"] == "7"


def test_a_relative_search_path_is_made_absolute_and_never_means_the_current_directory(
    monkeypatch, tmp_path: Path
):
    from edgeagent.worker.process_environment import python_path

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", ":lib:/opt/x:")
    assert python_path() == [str(tmp_path / "lib"), "/opt/x"]


def test_code_for_shapes_of_matrices_is_kept_for_few_unless_somebody_says_how_many(monkeypatch):
    name = "ONEDNN_PRIMITIVE_CACHE_CAPACITY"
    monkeypatch.delenv(name, raising=False)
    assert 1 <= int(worker_environment()[name]) <= 64
    monkeypatch.setenv(name, "7")
    assert worker_environment()[name] == "7"
