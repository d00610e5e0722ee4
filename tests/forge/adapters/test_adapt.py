"""`edgeagent forge adapt` on the tiny story model: what torch computes is what llama.cpp computes."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest

from tests.commands import run_here
from tests.conftest import TALES_CHAT, DaemonProcess, serving
from tests.lazy import lazily

gguf = lazily("gguf")
torch = lazily("torch")
base_model = lazily("edgeagent.forge.adapters.base_model")
chat_tokens = lazily("edgeagent.forge.adapters.chat_tokens")
lora = lazily("edgeagent.forge.adapters.lora")
training = lazily("edgeagent.forge.adapters.training")
pairs_of = lazily("edgeagent.forge.adapters.pairs")

ANSWER = "The end of the dog."
ROWS = [f"Tell of {who} {what}" for who in ("a cat", "Tom", "the sun", "my mom") for what in
        ("and a ball", "in the park", "at home", "with a big red box")]  # fmt: skip
QUESTION = "Tell of Tom at home"


class Trained(NamedTuple):
    model: Path
    adapter: Path
    figures: dict[str, Any]
    daemon: DaemonProcess

    def first_token(self, model: str) -> dict[str, float]:
        """The log-probabilities of the likeliest first tokens of an answer."""
        body = {
            "model": model, "messages": [{"role": "user", "content": QUESTION}], "max_tokens": 1,
            "logprobs": True, "top_logprobs": 20,
        }  # fmt: skip
        got = httpx.post(f"{self.daemon.url}/v1/chat/completions", json=body, timeout=120)
        assert got.status_code == 200, got.text
        (token,) = got.json()["choices"][0]["logprobs"]["content"]
        return {one["token"]: one["logprob"] for one in token["top_logprobs"]}


@pytest.fixture(scope="module")
def trained(tales_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trained]:
    folder, state = tmp_path_factory.mktemp("adapt"), tmp_path_factory.mktemp("state")
    models = folder / "models"
    shutil.copytree(tales_dir, models)
    (folder / "pairs.jsonl").write_text(
        "".join(json.dumps({"prompt": row, "answer": ANSWER}) + "\n" for row in ROWS)
    )
    done = run_here(
        "forge", "adapt", TALES_CHAT, "ender", "--from", folder / "pairs.jsonl", "--epochs", 16,
        "--rate", "0.01", "--rank", 4, "--state-dir", state, "--models-dir", models,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "perplexity of 2 unseen answers" in done.stdout
    figures = json.loads((state / "forge" / "adapters" / "ender" / "figures.json").read_text())
    with serving(models, state, preload=False) as daemon:
        (model,) = models.glob("*.gguf")
        yield Trained(
            model, state / "forge" / "adapters" / "ender" / "adapter.gguf", figures, daemon
        )


@pytest.mark.process
def test_the_loss_falls_and_unseen_answers_become_likelier(trained: Trained) -> None:
    figures = trained.figures
    assert figures["losses"][-1] < 0.5 * figures["losses"][0]
    assert figures["after"] < 0.5 * figures["before"] and figures["is_complete"]


@pytest.mark.process
def test_the_daemon_answers_as_torch_computes_with_and_without_the_adapter(
    trained: Trained,
) -> None:
    pair = pairs_of.Pair(QUESTION, ANSWER)
    template = None
    ((one,), _) = chat_tokens.token_pairs(
        trained.model, template, [pair], system=None, n_ctx=512, tell=lambda: None
    )
    model = base_model.BaseModel(trained.model, 512)
    prompt = torch.tensor([one.tokens[: one.n_prompt]])

    def computed() -> list[float]:
        with torch.no_grad():
            logits = model.logits(model.decoder(prompt)[0, -1])
        return sorted(torch.log_softmax(logits, -1).tolist(), reverse=True)[:20]

    served = trained.first_token(TALES_CHAT)
    assert computed() == pytest.approx(sorted(served.values(), reverse=True), abs=0.05)
    adapter = lora.Adapter(model, 4, 8.0)
    reader = gguf.GGUFReader(trained.adapter)
    adapter.restore({one.name: torch.tensor(one.data).float() for one in reader.tensors})
    changed = trained.first_token("ender")
    assert computed() == pytest.approx(sorted(changed.values(), reverse=True), abs=0.05)
    least = min(served.values())
    assert max(abs(changed[t] - served.get(t, least)) for t in changed) > 0.5


@pytest.mark.process
@pytest.mark.parametrize(
    ("model", "name", "said"),
    [
        ("ender", "other", "is an adapter itself"),
        ("nothing", "x", "nothing"),
        (TALES_CHAT, "../x", "../x"),
    ],
)
def test_what_cannot_be_adapted_is_refused(
    trained: Trained, tmp_path: Path, model: str, name: str, said: str
) -> None:
    (tmp_path / "pairs.csv").write_text("prompt,answer\n")
    done = run_here(
        "forge", "adapt", model, name, "--from", tmp_path / "pairs.csv",
        "--state-dir", tmp_path, "--models-dir", trained.model.parent,
    )  # fmt: skip
    assert done.returncode == 2 and said in done.stderr and "Traceback" not in done.stderr


class Stopped(Exception):
    pass


def test_an_interrupted_training_ends_as_one_that_was_not(
    trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgeagent.forge.adapters.training.CHECKPOINT_S", -1.0)
    monkeypatch.setattr("edgeagent.forge.adapters.training.BATCH_TOKENS", 16)
    made = [chat_tokens.TokenPair([1, 5 + n, 9, 7, 2], 3) for n in range(12)]

    def run(folder: Path, stop_at: int | None = None) -> Any:
        folder.mkdir(exist_ok=True)
        torch.manual_seed(1)
        model = base_model.BaseModel(trained.model, 64)
        adapter = lora.Adapter(model, 2, 4.0)
        options = training.TrainingOptions(2, 1e9, 1e-2, 1)
        steps = 0

        def tell(_part: float, _loss: float) -> None:
            nonlocal steps
            steps += 1
            if steps == stop_at:
                raise Stopped

        work = training.Training(
            model, adapter, made[:10], made[10:], options, folder / "c.pt", "key"
        )
        return work.run(tell), steps

    whole, n_steps = run(tmp_path / "a")
    with pytest.raises(Stopped):
        run(tmp_path / "b", stop_at=n_steps - 1)
    again, n_more = run(tmp_path / "b")
    assert again.n_steps == whole.n_steps == n_steps and n_more < n_steps
    assert math.isclose(again.after, whole.after, rel_tol=1e-4)
    (tmp_path / "b" / "c.pt").write_bytes(b"damaged")
    assert run(tmp_path / "b")[1] == n_steps
