"""`edgeagent models` on a real directory."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path

import pytest

from tests.cli.conftest import one_line


def test_an_empty_directory_says_how_to_get_a_model(edgeagent, tmp_path: Path):
    done = edgeagent("models", "list", "--models-dir", tmp_path)
    assert done.returncode == 0
    assert "edgeagent models install smollm2-135m-instruct" in done.stdout
    assert edgeagent("models", "verify", "--models-dir", tmp_path).returncode == 0


def test_the_shipped_catalog_is_found_from_a_checkout(edgeagent, tmp_path: Path):
    done = edgeagent("models", "catalog", "--models-dir", tmp_path)
    assert done.returncode == 0
    assert "smollm2-135m-instruct" in done.stdout


@pytest.mark.process
def test_a_dropped_in_file_waits_until_it_is_approved(edgeagent, stories_dir: Path, tmp_path: Path):
    where = ("--models-dir", stories_dir, "--state-dir", tmp_path / "state")
    digest = hashlib.sha256((stories_dir / "stories260k.gguf").read_bytes()).hexdigest()

    def row() -> str:
        lines = edgeagent("models", "list", *where).stdout.splitlines()
        (found,) = (line for line in lines if "stories260k" in line)
        return found

    assert "waits for `models approve`" in row() and "1.1 MB" in row()
    done = edgeagent("models", "approve", "stories260k", "--yes", *where)
    assert done.returncode == 0 and f"sha256: {digest}" in done.stdout, done.stdout + done.stderr
    assert row().rstrip().endswith("good")
    file = stories_dir / "stories260k.gguf"
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    assert "approved is" in edgeagent("models", "verify", *where).stderr
    done = edgeagent("models", "approve", "stories260k", "--yes", *where)
    assert "(approved was " in done.stdout
    assert "stories260k: good" in edgeagent("models", "verify", *where).stdout


@pytest.mark.process
def test_install_verify_damage_and_remove(edgeagent, stories: Path, tmp_path: Path):
    where = ("--models-dir", tmp_path / "models")
    done = edgeagent("models", "install", stories, *where)
    assert done.returncode == 0, done.stderr
    assert "sha256 " in done.stdout
    (name,) = {line.split()[1] for line in done.stdout.splitlines() if line.startswith("Installed")}
    assert f"{name}: good" in edgeagent("models", "verify", *where).stdout

    file = next((tmp_path / "models").rglob("*.gguf"))
    raw = bytearray(file.read_bytes())
    raw[-1] ^= 1
    file.write_bytes(raw)
    assert "sha256" in edgeagent("models", "verify", name, *where).stderr
    assert edgeagent("models", "verify", name, *where).returncode == 2

    assert "give --yes" in one_line(edgeagent("models", "remove", name, *where))
    assert file.exists()
    assert edgeagent("models", "remove", name, "--yes", *where).returncode == 0
    assert not file.exists()
    assert name in one_line(edgeagent("models", "remove", name, "--yes", *where))


def test_an_unknown_model_is_named_with_what_is_near(edgeagent, stories_dir: Path):
    for command in (["verify"], ["remove", "--yes"]):
        line = one_line(edgeagent("models", *command, "stories260", "--models-dir", stories_dir))
        assert "stories260k" in line


def test_a_file_that_is_no_model_is_refused_as_a_file(edgeagent, tmp_path: Path):
    file = tmp_path / "notes.txt"
    file.write_text("no model")
    line = one_line(edgeagent("models", "install", file, "--models-dir", tmp_path / "models"))
    assert "'notes.txt' does not have a model's file name" in line
    done = edgeagent("models", "install", "nobody", "--models-dir", tmp_path / "models")
    assert "'edgeagent models catalog' lists them" in one_line(done)


def test_a_listing_that_goes_to_a_pipe_has_every_id_whole(edgeagent, stories: Path, tmp_path: Path):
    name = "a-model-with-a-name-that-is-longer-than-the-column-of-any-terminal-would-show"
    (tmp_path / f"{name}.gguf").write_bytes(stories.read_bytes())
    done = edgeagent("models", "list", "--models-dir", tmp_path, env={"COLUMNS": "40"})
    (row,) = (line for line in done.stdout.splitlines() if name in line)
    assert row.split()[:2] == [name, f"{name}.gguf"]


def test_a_name_that_leads_out_of_the_directory_is_refused(edgeagent, stories_dir: Path):
    for name in ("../stories260k", "/etc/passwd", "a/../../b", "", "UP"):
        one_line(edgeagent("models", "remove", "--yes", name, "--models-dir", stories_dir))
    assert (stories_dir / "stories260k.gguf").exists()


def test_nothing_is_fetched_when_offline(edgeagent, tmp_path: Path):
    done = edgeagent(
        "models", "install", "smollm2-135m-instruct", "--offline", "--models-dir", tmp_path / "m"
    )
    assert done.returncode == 2
    assert "offline" in done.stderr


@pytest.mark.process
def test_install_without_a_model_takes_the_recommended_one(
    edgeagent, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("edgeagent.device.benchmark.TENSORS_LIMIT_S", 0.01)
    where = ("--models-dir", tmp_path / "models", "--state-dir", tmp_path / "state")
    choices = json.loads(edgeagent("models", "recommend", "--json", *where).stdout)["choices"]
    done = edgeagent("models", "install", "--offline", *where)
    # Each measures this machine for itself, and may come to another order.
    chosen = {f"{c['model_id']} {c['quant']}" for c in choices}
    found = re.search(r": (\S+ \S+), ", done.stdout)
    assert found is not None and found.group(1) in chosen
    model = found.group(1).split()[0]
    assert f"Model {model!r} comes from " in done.stderr, "there is no network to use"
    assert "tokens/s" in done.stdout and done.returncode == 2
    done = edgeagent("models", "install", "--task", "gardening", "--offline", *where)
    assert "'gardening' is not one of" in done.stderr and done.returncode == 2
    done = edgeagent("models", "install", "--quant", "Q4_0", *where)
    assert "need a MODEL" in done.stderr and done.returncode == 2


def test_what_comes_with_edgeagent_is_listed_verified_and_enough(
    edgeagent, shipped_assistant: Path, tmp_path: Path
):
    def run(*arguments: str):
        env = {"EDGEAGENT_MODELS__BUNDLED_DIR": str(shipped_assistant)}
        return edgeagent("models", *arguments, "--models-dir", tmp_path, env=env)

    listed = run("list").stdout
    assert re.search(
        r"^edge-assistant-s +edge-assistant-s.Q8_0.gguf .* shipped +good", listed, re.M
    )
    assert run("verify").stdout == "edge-assistant-s: good\n"
    assert run("ensure").stdout == "The default model is edge-assistant-s.\n"
    assert "is shipped with edgeagent" in one_line(run("remove", "edge-assistant-s", "--yes"))


def test_a_shipped_model_is_ensured_without_a_network_and_its_larger_one_is_not(
    edgeagent, shipped_assistant: Path, tmp_path: Path
):
    env = {"EDGEAGENT_MODELS__BUNDLED_DIR": str(shipped_assistant), "EDGEAGENT_OFFLINE": "true"}
    where = ("--models-dir", tmp_path)
    assert edgeagent("models", "ensure", *where, env=env).returncode == 0
    done = edgeagent("models", "ensure", "--larger", *where, env=env)
    assert "smollm2-135m-instruct" in one_line(done)


def test_an_assistant_is_recommended_for_its_domains_and_for_no_chat(edgeagent, tmp_path: Path):
    where = ("--models-dir", tmp_path, "--profile", "pi5-4gb", "--json")

    def best(*needs: str) -> str:
        return json.loads(edgeagent("models", "recommend", *needs, *where).stdout)["choices"][0][
            "model_id"
        ]

    assert best("--task", "assistant", "--domain", "service").startswith("edge-assistant-")
    chat = edgeagent("models", "recommend", "--all", *where).stdout
    assert "only answers with calls of its own tools" in chat
