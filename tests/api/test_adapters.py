"""LoRA adapters on a real daemon: installed by the command, named by requests, apart from each other."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from click.testing import CliRunner

from edgeagent.cli.main import cli
from tests.api.wire import error_of
from tests.conftest import TALES_CHAT, DaemonProcess, serving
from tests.data_adapters import write_adapter

PROMPT = "Once upon a time there was a little cat. The cat went to the garden and"


def run(state: Path, models: Path, *arguments: str) -> Any:
    where = ["--state-dir", str(state), "--models-dir", str(models)]
    return CliRunner().invoke(cli, ["models", "adapter", *arguments, *where])


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("adapters")


@pytest.fixture(scope="module")
def models(tales_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A models directory of our own with the tiny model."""
    folder = tmp_path_factory.mktemp("adapter-models")
    shutil.copy(tales_dir / f"{TALES_CHAT}.gguf", folder)
    return folder


@pytest.fixture(scope="module")
def files(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("files")
    for seed in (1, 2, 3):
        write_adapter(folder / f"tone-{seed}.gguf", models / f"{TALES_CHAT}.gguf", seed)
    write_adapter(folder / "nan.gguf", models / f"{TALES_CHAT}.gguf", 9, spoil="values")
    return folder


@pytest.fixture(scope="module")
def daemon(state: Path, models: Path, files: Path) -> Iterator[DaemonProcess]:
    with serving(models, state, preload=False) as daemon:
        for seed in (1, 2):
            done = run(state, models, "add", TALES_CHAT, str(files / f"tone-{seed}.gguf"))
            assert done.exit_code == 0, done.output
        yield daemon


def chances(
    daemon: DaemonProcess, model: str, prompt: str = PROMPT, **more: Any
) -> dict[str, float]:
    """The log-probabilities of the likeliest next tokens."""
    body = {
        "model": model,
        "prompt": prompt,
        "max_tokens": 1,
        "logprobs": 5,
        "temperature": 0,
    } | more
    reply = httpx.post(f"{daemon.url}/v1/completions", json=body, timeout=60)
    assert reply.status_code == 200, reply.text
    assert reply.json()["model"] == more.get("lora", model)
    return dict(reply.json()["choices"][0]["logprobs"]["top_logprobs"][0])


def distance(a: dict[str, float], b: dict[str, float]) -> float:
    shared = a.keys() & b.keys()
    return max((abs(a[one] - b[one]) for one in shared), default=99.0) if len(shared) >= 3 else 99.0


def test_answers_are_those_of_their_adapter_also_beside_others(daemon: DaemonProcess) -> None:
    names = [TALES_CHAT, "tone-1", "tone-2"]
    alone = {name: chances(daemon, name, PROMPT + " .") for name in names}
    assert all(distance(alone[a], alone[b]) > 0.05 for a in names for b in names if a < b), (
        "the adapters change something"
    )
    with ThreadPoolExecutor(6) as threads:
        # The same prompt again and again: a prefix of another adapter would show.
        wanted = [names[n % 3] for n in range(24)]
        found = list(threads.map(lambda name: chances(daemon, name, PROMPT + " ."), wanted))
    for name, values in zip(wanted, found, strict=True):
        assert distance(values, alone[name]) < 0.02


def test_the_field_lora_names_an_adapter_too(daemon: DaemonProcess) -> None:
    named = chances(daemon, "tone-1")
    assert distance(chances(daemon, TALES_CHAT, lora="tone-1"), named) < 0.02
    assert distance(chances(daemon, "default", lora="tone-1"), named) < 0.02
    with daemon.client() as client:
        chat = client.chat.completions.create(
            model="tone-1", messages=[{"role": "user", "content": "A cat"}], max_tokens=3
        )
        assert chat.model == "tone-1" and chat.usage is not None
        got = client.responses.create(
            model=TALES_CHAT, input="A cat", max_output_tokens=3, extra_body={"lora": "tone-2"}
        )
        assert got.model == "tone-2"


def test_a_hand_over_to_another_model_goes_without_the_adapter(daemon: DaemonProcess) -> None:
    with daemon.client() as client:
        store = client.vector_stores.create(name="empty").id
        tool: Any = {
            "type": "file_search",
            "vector_store_ids": [store],
            "on_thin_evidence": "router",
        }
        got = client.responses.create(
            model=TALES_CHAT, input="A cat", max_output_tokens=3, tools=[tool],
            extra_body={"lora": "tone-2"},
        )  # fmt: skip
        assert got.model_extra["edgeagent"]["knowledge"]["handover"] == "router"
        assert got.model == TALES_CHAT


@pytest.mark.parametrize(
    ("body", "status", "part"),
    [
        ({"model": TALES_CHAT, "lora": "tone-9"}, 404, "no LoRA adapter 'tone-9'"),
        ({"model": TALES_CHAT, "lora": "../tone-1"}, 404, "no LoRA adapter"),
        ({"model": "tone-2", "lora": "tone-1"}, 400, "names another"),
        ({"model": TALES_CHAT, "lora": ""}, 400, "lora"),
        ({"model": "tone-9"}, 404, "tone-9"),
    ],
)
def test_unknown_adapters_are_4xx(
    daemon: DaemonProcess, body: dict[str, Any], status: int, part: str
) -> None:
    reply = httpx.post(f"{daemon.url}/v1/completions", json={"prompt": "a", **body}, timeout=60)
    assert reply.status_code == status and part in error_of(reply.json())["message"]


def test_adapters_are_listed_with_their_model(daemon: DaemonProcess) -> None:
    with daemon.client() as client:
        rows = {row.id: row for row in client.models.list()}
        assert rows["tone-1"].model_extra["parent"] == TALES_CHAT
        assert rows[TALES_CHAT].model_extra["parent"] is None
        assert client.models.retrieve("tone-1").id == "tone-1"
        with pytest.raises(openai.NotFoundError):
            client.models.retrieve("tone-7")


def test_one_that_is_added_later_comes_with_the_next_load_and_goes_when_removed(
    daemon: DaemonProcess, state: Path, models: Path, files: Path
) -> None:
    before = chances(daemon, TALES_CHAT)
    done = run(state, models, "add", TALES_CHAT, str(files / "tone-3.gguf"), "--as", "late")
    assert done.exit_code == 0, done.output
    assert distance(chances(daemon, "late"), before) > 0.05
    assert distance(chances(daemon, TALES_CHAT), before) < 0.02
    assert "late" in run(state, models, "list").output
    # Another file under the same id is another adapter.
    late = chances(daemon, "late")
    done = run(state, models, "add", TALES_CHAT, str(files / "tone-1.gguf"), "--as", "late")
    assert done.exit_code == 0, done.output
    assert distance(chances(daemon, "late"), late) > 0.05
    assert distance(chances(daemon, "late"), chances(daemon, "tone-1")) < 0.02
    assert run(state, models, "remove", "late", "--yes").exit_code == 0
    reply = httpx.post(f"{daemon.url}/v1/completions", json={"prompt": "a", "model": "late"})
    assert reply.status_code == 404


def test_an_altered_adapter_is_not_served_and_the_model_is(
    daemon: DaemonProcess, state: Path, models: Path, files: Path
) -> None:
    run(state, models, "add", TALES_CHAT, str(files / "tone-3.gguf"), "--as", "altered")
    (file,) = (models / "altered").glob("*.gguf")
    data = bytearray(file.read_bytes())
    data[-5] ^= 1
    file.write_bytes(data)
    reply = httpx.post(f"{daemon.url}/v1/completions", json={"prompt": "a", "model": "altered"})
    assert reply.status_code >= 400
    assert chances(daemon, TALES_CHAT) and chances(daemon, "tone-1")
    assert run(state, models, "remove", "altered", "--yes").exit_code == 0


@pytest.mark.usefixtures("daemon")
def test_bad_files_are_refused_at_once(state: Path, models: Path, files: Path) -> None:
    cases = {
        str(files / "nan.gguf"): "no numbers",
        str(models / f"{TALES_CHAT}.gguf"): "no LoRA adapter",
        __file__: "not a GGUF file",
    }
    for path, part in cases.items():
        done = run(state, models, "add", TALES_CHAT, path, "--as", "bad")
        assert done.exit_code == 1 and part in str(done.exception), done.output
    assert not (models / "bad").exists()
