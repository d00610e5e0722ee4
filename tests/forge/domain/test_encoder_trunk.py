"""A domain model on the general sentence encoder: which base model is kept, and what is written."""

from __future__ import annotations

import asyncio
from pathlib import Path

import numpy as np
import pytest

from edgeagent.catalog.catalog_file import parse_catalog
from edgeagent.errors import ForgeFailed
from edgeagent.forge.domain.build import BuildOptions, build
from edgeagent.forge.domain.encoder_trunk import EncoderTrunk
from edgeagent.forge.domain.example import Domain, Place
from edgeagent.forge.domain.served_evaluation import choices
from edgeagent.forge.domain.trunk import Trunk
from edgeagent.forge.domain.workspace import Plan, Workspace, digest_of
from tests.conftest import ROOT

SHIPPED = ROOT / "models" / "edge-encoder" / "edge-encoder.gguf"
TEXTS = {
    "biology": ("cells divide", "plants turn light into sugar", "genes are copied", "blood carries oxygen",
                "bacteria grow in the gut", "a virus enters the cell"),
    "law": ("the court heard the appeal", "the contract is void", "a judge may order damages",
            "the witness was sworn in", "the jury found him guilty", "the lawyer filed a motion"),
    "economics": ("prices rise with demand", "the bank raised interest rates", "taxes reduce spending",
                  "inflation fell last year", "exports exceed imports", "wages grow with productivity"),
}  # fmt: skip


def subjects() -> Domain:
    domain = Domain()
    for intent, texts in TEXTS.items():
        for line, text in enumerate(texts, start=1):
            domain.add(text, intent, Place(Path(f"{intent}.txt"), line))
    return domain


@pytest.mark.process
def test_the_better_base_model_is_kept_and_served(shipped_assistant: Path, tmp_path: Path):
    domain, workspace = subjects(), Workspace(tmp_path, "subjects")
    workspace.begin(Plan(1, "head", digest_of(domain), "", "", 1.0), domain)
    assistant = next((shipped_assistant / "edge-assistant-s").glob("*.gguf"))
    bases = [Trunk.read(assistant), EncoderTrunk.read(SHIPPED)]
    made = build(domain, bases, workspace, BuildOptions(1, "head"), lambda *told: None)
    figures = made.figures
    assert figures.base == "edge-encoder"
    assert figures.tried["edge-encoder"] >= figures.tried["edge-assistant-s"]
    assert figures.accuracy == figures.tried["edge-encoder"] > 0.7
    assert figures.size_bytes < 8_000_000
    assert "edge-encoder" in workspace.card.read_text()
    path = workspace.model / "catalog.toml"
    variant = parse_catalog(path.read_text(), str(path))["subjects"].variants[0]
    assert (variant.quant, variant.file) == ("Q4_0", "subjects.gguf")
    asked = [
        "proteins fold inside the cell",
        "the judge ordered him to pay damages",
        "interest rates rise",
    ]
    found = asyncio.run(choices(workspace.gguf, asked, domain.intents, {}))
    assert [choice.intent for choice in found] == ["biology", "law", "economics"]
    assert all(0 < choice.margin <= choice.probability <= 1 for choice in found)

    # With torch it is the same where the encoder does better: an assistant's layers would not help.
    again = build(domain, bases, workspace, BuildOptions(1, "torch"), lambda *told: None)
    assert (again.figures.method, again.figures.base) == ("head", "edge-encoder")


def test_an_encoder_goes_into_a_file_and_back(tmp_path: Path):
    trunk = EncoderTrunk.read(SHIPPED)
    rows = np.arange(2 * 385, dtype=np.float32).reshape(2, 385)
    path = tmp_path / "made.gguf"
    trunk.write(path, ["a", "oos"], rows, name="made", description="")
    again = EncoderTrunk.read(path)
    assert again.tensors.keys() == trunk.tensors.keys()
    assert all(np.array_equal(again.tensors[n][0], trunk.tensors[n][0]) for n in trunk.tensors)
    assert again.n_params == trunk.n_params
    weights = {"token_embd_norm.weight": np.full(384, 2, np.float32)}
    trunk.write(path, [], np.zeros((0, 385), np.float32), name="", description="", weights=weights)
    assert EncoderTrunk.read(path).dense("token_embd_norm.weight").tolist() == [2.0] * 384


def test_other_files_are_refused(shipped_assistant: Path, tmp_path: Path):
    assistant = next((shipped_assistant / "edge-assistant-s").glob("*.gguf"))
    with pytest.raises(ForgeFailed, match="its architecture is not bert"):
        EncoderTrunk.read(assistant)
    with pytest.raises(ForgeFailed, match="cannot be the trunk"):
        EncoderTrunk.read(tmp_path / "none.gguf")
