"""What the running daemon serves of its models directory, and what it refuses until somebody approves it."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import httpx

from tests.commands import run_here
from tests.conftest import DaemonProcess, serving, wait_for


def complete(daemon: DaemonProcess, model: str) -> tuple[int, Any]:
    body = {"model": model, "prompt": "Once", "max_tokens": 2}
    reply = httpx.post(f"{daemon.url}/v1/completions", json=body, timeout=60)
    return reply.status_code, reply.json()


def edgeagent(*arguments: object) -> str:
    done = run_here(*arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout


def audited(daemon: DaemonProcess, action: str) -> list[str]:
    rows = httpx.get(f"{daemon.url}/admin/audit").json()["data"]
    return [row["object"] for row in rows if row["action"] == action]


def spoil(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def test_a_dropped_file_is_served_once_it_is_approved_and_an_altered_one_no_more(
    stories: Path, tmp_path: Path
):
    models, state = tmp_path / "models", tmp_path / "state"
    models.mkdir()
    shutil.copy(stories, models / "mine.gguf")
    where = ("--models-dir", models, "--state-dir", state)
    with serving(models, state, default_model="mine") as daemon:
        assert complete(daemon, "mine")[0] == 200
        shutil.copy(stories, models / "dropped.gguf")
        status, body = complete(daemon, "dropped")
        assert (status, body["error"]["code"]) == (403, "model_not_approved")
        assert "models approve dropped" in body["error"]["message"]
        assert str(models) not in body["error"]["message"]
        listed = httpx.get(f"{daemon.url}/v1/models").json()["data"]
        ids = {model["id"] for model in listed}
        assert "mine" in ids and "dropped" not in ids
        assert "Approved dropped" in edgeagent("models", "approve", "dropped", "--yes", *where)
        assert complete(daemon, "dropped")[0] == 200
        httpx.post(f"{daemon.url}/v1/models/dropped/unload", timeout=30).raise_for_status()
        spoil(models / "dropped.gguf")
        status, body = complete(daemon, "dropped")
        assert (status, body["error"]["code"]) == (503, "model_altered")
        (models / "dropped.gguf").write_bytes(b"GGUF")  # nor is its header what is complained of
        assert complete(daemon, "dropped")[1]["error"]["code"] == "model_altered"
        # Nobody's text is in the log, and the administrator finds it in the audit.
        refused = [x for x in daemon.log.read_text().splitlines() if "model_refused" in x]
        assert len(refused) == 2
        assert all("model=dropped " in x and " reason=altered " in x for x in refused)
        wait_for(
            lambda: audited(daemon, "model.altered")
        )  # it is refused without waiting for the disk
        assert set(audited(daemon, "model.altered")) == {"model:dropped"}
        assert complete(daemon, "mine")[0] == 200


def test_a_default_model_that_was_altered_is_not_loaded_and_ready_says_why(
    stories: Path, tmp_path: Path
):
    models, state = tmp_path / "models", tmp_path / "state"
    where = ("--models-dir", models, "--state-dir", state)
    copy = tmp_path / "tale.gguf"
    shutil.copy(stories, copy)
    edgeagent("models", "install", copy, *where)
    (file,) = (models / "tale").glob("*.gguf")
    spoil(file)
    with serving(models, state, default_model="tale", preload=False) as daemon:
        assert complete(daemon, "tale")[1]["error"]["code"] == "model_altered"

        def reason() -> str:
            return str(httpx.get(f"{daemon.url}/ready").json().get("reason"))

        wait_for(lambda: "is not the approved one" in reason())
        edgeagent("models", "install", copy, *where)
        assert complete(daemon, "tale")[0] == 200
