"""All layers of a domain model, trained with torch: weights in and out, slots, and going on after a break."""

from __future__ import annotations

import asyncio
from pathlib import Path

import numpy as np
import pytest

from edgeagent.forge.domain.call_rows import calls_of, first_rows
from edgeagent.forge.domain.example import Domain, Place
from edgeagent.forge.domain.readers.inline_slots import add_marked
from edgeagent.forge.domain.served_evaluation import choices
from edgeagent.forge.domain.trunk import EMBEDDING, Trunk
from edgeagent.forge.domain.workspace import Plan, Workspace, digest_of
from tests.lazy import lazily

pytestmark = pytest.mark.process
torch = lazily("torch")
adaptation = lazily("edgeagent.forge.domain.adaptation")
building = lazily("edgeagent.forge.domain.build")

PORTS = ("rome", "oslo", "lima", "paris", "cape town")
FORMS = ("a ticket to [{}](port)", "take me to [{}](port) please", "i want to sail to [{}](port)")
REFUNDS = ("money back", "refund my ticket", "cancel and refund", "i want a refund", "give it back")


def ferry() -> Domain:
    domain = Domain()
    place = Place(Path("ferry.csv"), 1)
    for form in FORMS:
        for port in PORTS:
            add_marked(domain, form.format(port), "sail", place)
    for text in REFUNDS:
        domain.add(text, "refund", place)
        domain.add(f"{text} now", "refund", place)
    return domain


@pytest.fixture(scope="module")
def trunk(shipped_assistant: Path) -> Trunk:
    return Trunk.read(next((shipped_assistant / "edge-assistant-s").glob("*.gguf")))


def test_weights_that_go_through_torch_are_the_same(trunk: Trunk, tmp_path: Path):
    domain = ferry()
    rows = first_rows(trunk, domain, np.ones((3, trunk.n_embd), np.float32))
    assert calls_of(domain)[:3] == [
        '{"name":"refund","arguments":{}}', '{"name":"sail","arguments":{', '{"name":"oos","arguments":{}}',
    ]  # fmt: skip
    assert np.abs(rows).sum(1).min() > 0, "every slot begins as something that the base knows"
    weights = adaptation.weights_of(adaptation.decoder_of(trunk, rows))
    names = set(trunk.tensors)
    assert weights.keys() == names
    for name in names - {EMBEDDING}:
        assert np.array_equal(weights[name], trunk.dense(name))
    target = tmp_path / "made.gguf"
    trunk.write(target, calls_of(domain), rows, name="made", description="", weights=weights)
    again = Trunk.read(target)
    assert again.tokens == trunk.tokens
    assert np.allclose(again.word_rows, trunk.word_rows, atol=2e-3)
    assert again.calls.keys() == set(calls_of(domain))


def test_what_is_trained_is_served_and_finished_work_is_not_repeated(
    trunk: Trunk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    # Beside other tests, two threads of a model this small wait for each other most of the time.
    monkeypatch.setattr("edgeagent.forge.domain.torch_training.cores", lambda: 1)
    domain, workspace = ferry(), Workspace(tmp_path, "ferry")
    plan = Plan(1, "torch", digest_of(domain), "", "", 2.0)
    assert workspace.begin(plan, domain)
    n_told = []
    options = building.BuildOptions(1, "torch", 2.0)
    made = building.build(domain, [trunk], workspace, options, lambda *told: n_told.append(told))
    assert made.figures.method == "torch"
    assert {stage for stage, _, _ in n_told} >= {"reading texts", "training", "training all"}
    (choice,) = asyncio.run(
        choices(workspace.gguf, ["a ticket to lima"], domain.intents, domain.slot_names)
    )
    assert choice.intent == "sail"
    assert set(choice.slots) <= {"port"}

    # What is finished is not computed again: the same command goes on with the checkpoints.
    assert not workspace.begin(plan, domain)
    before = workspace.gguf.read_bytes()
    monkeypatch.setattr(adaptation.DomainTask, "loss", None)
    building.build(domain, [trunk], workspace, options, lambda *told: None)
    assert workspace.gguf.read_bytes() == before
