"""`edgeagent forge new`: from a file of examples to an answer of a running daemon."""

from __future__ import annotations

import csv
import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import openai
import pytest

from tests.commands import run_here
from tests.conftest import ROOT, DaemonProcess, serving

TEXTS = {
    "departure": ("when does the ferry leave", "what time is the next boat", "departure times please"),
    "luggage": ("how many bags may i take", "is my suitcase too heavy", "what luggage is allowed"),
    "refund": ("i want my money back", "refund my ticket", "can i get a refund"),
}  # fmt: skip
ASIDES = ("{}", "{} today", "hello, {}", "{} for my family")


def examples(folder: Path) -> Path:
    lines = [
        json.dumps({"text": form.format(text), "intent": intent})
        for intent, texts in TEXTS.items() for text in texts for form in ASIDES
    ]  # fmt: skip
    lines.append(json.dumps({"intent": "refund", "answer": "Refunds take five days."}))
    path = folder / "ferry.jsonl"
    path.write_text("\n".join(lines))
    return path


@pytest.fixture(scope="module")
def shipped(shipped_assistant: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small edge-assistant-s, and the shipped edge-encoder."""
    folder = tmp_path_factory.mktemp("shipped") / "models"
    shutil.copytree(shipped_assistant, folder)
    shutil.copytree(ROOT / "models" / "edge-encoder", folder / "edge-encoder")
    return folder


@pytest.fixture(scope="module")
def daemon(shipped: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[DaemonProcess]:
    base = tmp_path_factory.mktemp("own-intents")
    models, state = base / "models", base / "state"
    models.mkdir()
    with serving(models, state, shipped_models_dir=str(shipped), preload=False) as daemon:
        yield daemon


@pytest.fixture(scope="module")
def forge(daemon: DaemonProcess, shipped: Path):
    def run(*arguments: object, bundled: Path = shipped):
        where = ("--state-dir", daemon.state_dir, "--models-dir", models_dir(daemon))
        env = {"EDGEAGENT_MODELS__BUNDLED_DIR": str(bundled)}
        return run_here("forge", *arguments, *where, env=env)

    return run


def models_dir(daemon: DaemonProcess) -> Path:
    return daemon.state_dir.parent / "models"


@pytest.mark.process
def test_a_running_daemon_answers_with_a_model_that_was_just_made(daemon, forge, tmp_path: Path):
    done = forge("new", "ferry", "--from", examples(tmp_path))
    assert done.returncode == 0, done.stderr
    assert 'Served as "model": "ferry"' in done.stdout
    assert "Base model: edge-encoder (unseen texts right: edge-assistant-s " in done.stderr
    with daemon.client() as client:
        for intent, texts in TEXTS.items():
            answer = client.chat.completions.create(
                model="ferry", messages=[{"role": "user", "content": texts[0]}]
            )
            (call,) = answer.choices[0].message.tool_calls
            assert call.function.name == intent
        assert "ferry" in {model.id for model in client.models.list()}
        assert "edge-encoder" not in {model.id for model in client.models.list()}
        for named in (client.embeddings.create, client.responses.create):
            with pytest.raises(openai.NotFoundError):
                named(model="edge-encoder", input="a boat")
        with pytest.raises(openai.BadRequestError, match="embeddings"):
            client.embeddings.create(model="ferry", input="a boat")
        told = client.chat.completions.create(
            model="ferry", messages=[{"role": "user", "content": "refund my ticket"}],
            metadata={"calls": "false"},
        )  # fmt: skip
        assert told.choices[0].message.content == "Refunds take five days."
    folder = models_dir(daemon) / "ferry"
    assert {path.name for path in folder.iterdir()} == {
        "ferry.gguf", "ferry.json", "README.md", "installed.toml",
    }  # fmt: skip
    assert "12 | - |" in (folder / "README.md").read_text()
    assert not (daemon.state_dir / "forge" / "ferry" / "work").exists()
    assert "has no version before 1" in forge("rollback", "ferry").stderr


@pytest.mark.process
def test_a_model_that_is_made_again_replaces_itself_learns_corrections_and_goes_back(
    daemon, forge, shipped_assistant: Path, tmp_path: Path
):
    # Made again from other examples. Without edge-encoder an assistant's states are all there is; the update
    # may take the better one.
    again = examples(tmp_path)
    again.write_text(again.read_text().replace('"luggage"', '"baggage"'))
    done = forge("new", "ferry", "--from", again, bundled=shipped_assistant)
    assert done.returncode == 0, done.stderr
    assert "Base model" not in done.stderr
    assert "baggage" in next((models_dir(daemon) / "ferry").rglob("ferry.json")).read_text()
    more = tmp_path / "more.csv"
    texts = [
        "may my dog come along",
        "are pets allowed",
        "do you take cats",
        "is there room for a dog",
        "pets",
    ]
    more.write_text("text,intent\n" + "".join(f"{text},pets\n" for text in texts))

    def intent_of(text: str) -> str:
        with daemon.client(max_retries=0) as client:
            answer = client.chat.completions.create(
                model="ferry", messages=[{"role": "user", "content": text}]
            )
        return answer.model_extra["edgeagent"]["confidence"]["intent"]

    assert intent_of(TEXTS["luggage"][0]) == "baggage"
    done = forge("update", "ferry", "--from", more, "--accept")
    assert done.returncode == 0, done.stderr
    assert re.search(r"\d of 3\d texts that it knew are lost", done.stderr)
    assert intent_of("may my dog come along") == "pets"
    with daemon.client() as client:
        client.responses.create(model="ferry", input=TEXTS["refund"][0])
        said = [{"role": "user", "content": "=1+1 boats please"}]
        client.chat.completions.create(model="ferry", messages=said, store=True)
    review = tmp_path / "review.csv"
    done = forge("review", "ferry", "--out", review)
    assert done.returncode == 0, done.stderr
    rows = list(csv.DictReader(review.read_text().splitlines()))
    assert [row["text"] for row in rows] == ["'=1+1 boats please"]  # of the other it is an example
    assert "a new file" in forge("review", "ferry", "--out", review).stderr
    assert "is no directory" in forge("review", "ferry", "--out", tmp_path / "a" / "b.csv").stderr
    assert forge("rollback", "ferry").stdout == "ferry is version 2 again.\n"
    assert intent_of("may my dog come along") != "pets"
    assert "was not made here" in forge("update", "ship", "--from", more).stderr


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("../ferry", "is not the name of a model"),
        ("a/b", "is not the name of a model"),
        ("edge-assistant-s", "is a model of edgeagent"),
        ("edge-encoder", "is a model of edgeagent"),
    ],
)
def test_names_of_other_models_are_refused(forge, tmp_path: Path, name: str, said: str):
    done = forge("new", name, "--from", examples(tmp_path))
    assert done.returncode == 2
    assert said in done.stderr and done.stderr.count("\n") == 1


def test_errors_in_examples_stop_before_training(forge, tmp_path: Path):
    path = tmp_path / "a.csv"
    path.write_text("text,intent\nhello,greet\nHello!,leave\nbye,leave\n")
    done = forge("new", "shop", "--from", path)
    assert done.returncode == 2
    assert f"error: {path}:3: 'Hello!' is 'leave' here and 'greet' at {path}:2" in done.stderr
    assert "correct the lines above, then run the command again" in done.stderr.splitlines()[-1]
