"""Names of models in every dialect: aliases, and the list as each SDK reads it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import ollama
import openai
import pytest

from edgeagent.errors import SettingsError
from edgeagent.settings import resolve
from tests.conftest import SHALLOW, DaemonProcess, serving
from tests.lazy import lazily

anthropic = lazily("anthropic")

ASK: list[Any] = [{"role": "user", "content": "hi"}]


@pytest.fixture(scope="module")
def daemon(shallow_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[DaemonProcess]:
    aliases = {"gpt-4o*": "default", "claude-*": SHALLOW, "llama3.2": SHALLOW}
    state = tmp_path_factory.mktemp("aliases")
    with serving(shallow_dir, state, default_model=SHALLOW, model_aliases=aliases) as daemon:
        yield daemon


def test_an_alias_is_answered_in_every_dialect_by_the_model_that_it_stands_for(daemon):
    with daemon.client() as client:
        chat = client.chat.completions.create(model="gpt-4o-mini", messages=ASK, max_tokens=1)
        assert chat.model == SHALLOW, "answers name the model that answered"
        text = client.completions.create(model="gpt-4o", prompt="Once", max_tokens=1)
        turn = client.responses.create(model="gpt-4o", input="hi", max_output_tokens=1, store=False)
        assert text.model == turn.model == SHALLOW
        with pytest.raises(openai.NotFoundError):
            client.chat.completions.create(model="gpt-3", messages=ASK, max_tokens=1)
    with anthropic.Anthropic(base_url=daemon.url, api_key="none", max_retries=0) as claude:
        assert (
            claude.messages.create(model="claude-opus-4", messages=ASK, max_tokens=1).model
            == SHALLOW
        )
        assert claude.messages.count_tokens(model="claude-x", messages=ASK).input_tokens > 5
    with ollama.Client(daemon.url) as llama:
        made = llama.chat("llama3.2:latest", ASK, options={"num_predict": 1})
        assert made.model == "llama3.2:latest", "Ollama's clients read the name that they sent"
        assert llama.show("llama3.2").details.family == "llama"
    for path in ("/tokenize", "/v1/models/gpt-4o/load"):
        reply = httpx.post(
            f"{daemon.url}{path}", json={"content": "x", "model": "gpt-4o"}, timeout=60
        )
        assert reply.status_code == 200, path


def test_aliases_are_listed_with_their_models(daemon):
    with daemon.client() as client:
        listed = {model.id: model for model in client.models.list()}
        assert set(listed[SHALLOW].aliases) == {"gpt-4o*", "claude-*", "llama3.2"}
        assert listed["llama3.2"].alias_of == SHALLOW and "gpt-4o*" not in listed
        assert client.models.retrieve("gpt-4o").id == SHALLOW


def test_anthropics_sdk_reads_the_list(daemon):
    with anthropic.Anthropic(
        base_url=daemon.url, api_key="none", max_retries=0, _strict_response_validation=True
    ) as claude:
        listed = list(claude.models.list())
        assert {SHALLOW, "llama3.2"} <= {model.id for model in listed}
        assert all(model.type == "model" and model.display_name for model in listed)
        assert claude.models.retrieve(SHALLOW).created_at.year >= 2020
    assert "object" in httpx.get(f"{daemon.url}/v1/models").json()


def settings(tmp_path: Path, text: str) -> Any:
    path = tmp_path / "edgeagent.toml"
    path.write_text(text)
    return resolve(config=path).settings


def test_aliases_are_a_table_in_the_file(tmp_path):
    found = settings(tmp_path, '[models.aliases]\n"gpt-4o*" = "default"\n')
    assert found.models.aliases == {"gpt-4o*": "default"}
    assert settings(tmp_path, "").models.aliases == {}
    for wrong in (
        "[models]\nalias = 1\n", "models = 5\n", '[models.aliases]\n"x" = 5\n',
        '[models.aliases]\n"" = "x"\n',
        "[models]\naliases = 3\n",
    ):  # fmt: skip
        with pytest.raises(SettingsError):
            settings(tmp_path, wrong)


def test_an_evaluation_harness_reads_the_vocabulary(daemon):
    found = httpx.get(f"{daemon.url}/tokenizer_info", params={"model": "gpt-4o"}, timeout=60).json()
    assert found["eos_token"] == "<|im_end|>" and "<|im_start|>" in found["chat_template"]
    assert found["model_max_length"] == 4096 and found["vocab_size"] > 40_000
    assert httpx.get(f"{daemon.url}/tokenizer_info?model=nobody").status_code == 404
