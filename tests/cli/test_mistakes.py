"""Mistakes at the command line: one line on standard error, status 2, and the way out in it."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import pytest

from edgeagent.cli.main import main
from edgeagent.daemon import early_worker
from edgeagent.settings.environment import ENV_PREFIX
from tests.conftest import ROOT

MODEL = ROOT / "models" / "edge-assistant-s" / "edge-assistant-s.Q8_0.gguf"
Run = Callable[..., str]


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder with things that are none of what a command wants."""
    (tmp_path / "file").write_text("no folder")
    (tmp_path / "notes.txt").write_text("no model")
    (tmp_path / "bad.gguf").write_bytes(b"GGUFxxxxxxxx")
    (tmp_path / "short.gguf").write_bytes(MODEL.read_bytes()[:100_000])
    (tmp_path / "other.gguf").write_bytes(MODEL.read_bytes().replace(b"llama", b"xlamb"))
    (tmp_path / "empty").mkdir()
    (tmp_path / "two").mkdir()
    (tmp_path / "two" / "a.gguf").write_bytes(b"GGUF")
    (tmp_path / "two" / "b.gguf").write_bytes(b"GGUF")
    (tmp_path / "tensors").mkdir()
    (tmp_path / "tensors" / "model.safetensors").write_bytes(b"x")
    (tmp_path / "bad.toml").write_text("port = ")
    (tmp_path / "unknown.toml").write_text("prot = 1")
    (tmp_path / "wrong.toml").write_text("port = 'x'")
    (tmp_path / "rules.toml").write_text("routing.assistant_tools = 'bad.toml'")
    return tmp_path


@pytest.fixture
def run(place: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Run:
    """Run a command in this process; gives its standard error. `@` stands for the folder."""
    for name in list(os.environ):
        if name.startswith(ENV_PREFIX) and name != "EDGEAGENT_STORE__KEY_FILE":
            monkeypatch.delenv(name)
    monkeypatch.setenv("EDGEAGENT_STATE_DIR", str(place / "state"))
    monkeypatch.setenv("EDGEAGENT_STORE__KEY_FILE", str(place / "key"))
    monkeypatch.setenv("COLUMNS", "300")
    monkeypatch.setattr(early_worker, "waiting", nullcontext)  # `serve` starts no worker here

    def ask(command: str, **variables: str) -> str:
        for name, value in variables.items():
            monkeypatch.setenv(name, value.replace("@", str(place)))
        if command.startswith("serve"):  # else it begins to load one, and the log says so
            monkeypatch.setenv("EDGEAGENT_MODELS__BUNDLED_DIR", str(place / "none"))
        arguments = [part.replace("@", str(place)) for part in command.split()]
        monkeypatch.setattr(sys, "argv", ["edgeagent", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        said = capfd.readouterr().err
        assert ended.value.code == 2, said
        return said

    return ask


MISTAKES = [
    ("modles", "No such command 'modles'"),
    ("models lst", "--help"),
    ("models install --qunt Q4_0", "--quant"),
    ("models install nobody", "edgeagent models catalog"),
    ("models install smollm2-135m-instrct", "smollm2-135m-instruct"),
    ("models install smollm2", "'smollm2-1.7b-instruct'"),
    ("models install smollm2-135m-instruct --quant Q9", "Q4_1"),
    ("models install @/nothing.gguf", "check the path"),
    ("models install @/notes.txt", "NAME.gguf"),
    ("models install @/bad.gguf", "refused"),
    ("models install @/short.gguf", "truncated"),
    ("models install @/other.gguf", "'xlamb'"),
    ("models install @/empty", "no .gguf file"),
    ("models install @/two", "a.gguf, b.gguf"),
    ("models install @/tensors", "give a GGUF"),
    ("models install hf.co/owner", "hf.co/OWNER/REPO"),
    ("models install hf.co/owner/repo/README.md", "not a .gguf file"),
    ("models install hf.co/owner/repo:Q4_0 --offline", "--online"),
    ("models install hf://owner/repo --offline", "give its path"),
    ("models install https://example.org/m.gguf --offline", "--online"),
    ("models install https://example.org/m.zip", ".gguf"),
    ("models install http://example.org/m.gguf", "https://"),
    ("models install ftp://example.org/m.gguf", "hf.co/OWNER/REPO"),
    ("models install https://127.0.0.1:9/m.gguf", "check the network"),
    ("models install all-minilm-l6-v2 --offline", "--file PATH"),
    ("models install --file @/bad.gguf", "MODEL"),
    ("models install smollm2-135m-instruct --as mine", "--as"),
    ("models install @/bad.gguf --quant Q4_0", "--quant"),
    ("models install @/bad.gguf --as BAD", "lower-case"),
    ("models install @/bad.gguf --models-dir @/file", "directory"),
    ("models verify nobody", "edgeagent models"),
    ("models remove nobody --yes", "edgeagent models"),
    ("models remove ../../etc/passwd --yes", "model id"),
    ("models load nobody --port 9", "edgeagent serve"),
    ("models list --models-dir @/file", "directory"),
    ("models list --config @/nothing.toml", "--config"),
    ("models list --config @/bad.toml", "Correct that line"),
    ("models list --config @/unknown.toml", "did you mean http.port"),
    ("models list --config @/wrong.toml", "port"),
    ("models list --profile nothing", "profile"),
    ("serve --port 99999999", "65535"),
    ("serve --port 0 --state-dir @/file", "is a file"),
    ("serve --port 0 --state-dir @/file/below", "is a file"),
    ("serve --port 0 --models-dir @/file", "is a file"),
    ("serve --port 0 --host 0.0.0.0", "edgeagent keys create"),
    ("serve --port 0 --config @/rules.toml", "assistant_tools"),
    ("keys create", "--name"),
    ("keys revoke nobody", "edgeagent keys list"),
    ("keys list --state-dir @/file", "file"),
    ("data export", "--owner"),
    ("bundle install @/notes.txt", "bundle"),
    ("chat --temperature hot", "--temperature"),
]


# Commands that may have started a worker by the time their mistake is found.
STARTING = ("models install @/other.gguf", "serve")


@pytest.mark.parametrize(
    ("command", "way_out"),
    [
        pytest.param(*m, id=m[0], marks=pytest.mark.process if m[0].startswith(STARTING) else ())
        for m in MISTAKES
    ],
)
def test_a_mistake_is_one_line_with_the_way_out(run: Run, command: str, way_out: str):
    said = run(command)
    # A bar may stand before the line where something was fetched first.
    lines = [line for line in said.strip().splitlines() if "━" not in line]
    assert len(lines) == 1, said
    assert lines[0].startswith("edgeagent: ")
    assert way_out in lines[0]


def test_a_variable_that_is_unknown_or_wrong_is_named(run: Run):
    assert "EDGEAGENT_HTTP__PORT" in run("models list", EDGEAGENT_PROT="1")
    assert "did you mean" in run("models list", EDGEAGENT_PROT="1")


def test_a_converted_model_asks_for_its_package_before_it_is_fetched(
    run: Run, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("edgeagent.catalog.install.staging.find_spec", lambda name: None)
    said = run("models install all-minilm-l6-v2")
    assert "pip install 'edgeagent[convert]'" in said
    assert "fetch" not in said


def test_a_model_larger_than_the_memory_is_refused_before_it_is_fetched(
    run: Run, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("edgeagent.cli.models_install._check_memory", _too_small)
    assert "--force" in run("models install @/bad.gguf")


def _too_small(here: object, force: bool, name: str, size_bytes: int) -> None:
    from edgeagent.errors import InstallFailed

    raise InstallFailed(f"{name} has {size_bytes} bytes: choose a smaller one, or give --force.")


def test_a_disk_that_is_full_at_the_first_start_is_told_in_a_line(
    run: Run, monkeypatch: pytest.MonkeyPatch
):
    from edgeagent.errors import StorageFull
    from edgeagent.store import database

    def full(*_: object) -> None:
        raise StorageFull("The disk has 0 MiB left.")

    monkeypatch.setattr(database.Database, "__init__", full)
    said = run("keys create --name x")
    assert "free space" in said and "--state-dir" in said
    assert len(said.strip().splitlines()) == 1


def test_a_state_directory_that_may_not_be_entered_is_told_in_a_line(
    run: Run, place: Path, monkeypatch: pytest.MonkeyPatch
):
    (place / "state").mkdir()
    monkeypatch.setattr(
        "edgeagent.cli.shared.options.os.access", lambda path, mode: False
    )  # root may all
    for command in ("serve --port 0", "keys list", "models list", "chat hello"):
        assert "cannot be entered" in run(command)


def test_a_full_disk_below_any_command_is_told_in_a_line(run: Run, monkeypatch: pytest.MonkeyPatch):
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device", "/somewhere")

    monkeypatch.setattr("edgeagent.cli.models.library_of", full)
    said = run("models list")
    assert said.startswith("edgeagent: /somewhere: No space left on device.")
