"""The small sentence encoder: cut out of a large one, trained in the precision that it is stored in."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from gguf import GGMLQuantizationType
from gguf.quants import dequantize, quantize

from edgeagent.forge.domain.encoder_trunk import EncoderTrunk
from edgeagent.forge.domain.features import encoder, vectors
from edgeagent.forge.sentence.vocabulary import chosen
from tests.conftest import ROOT
from tests.lazy import lazily

torch = lazily("torch")
students = lazily("edgeagent.forge.sentence.student")
distilling = lazily("edgeagent.forge.sentence.distilling")
files = lazily("edgeagent.forge.sentence.gguf_file")
SHIPPED = ROOT / "models" / "edge-encoder" / "edge-encoder.gguf"


def test_rounding_is_that_of_the_file():
    weight = np.random.default_rng(1).normal(size=(7, 96)).astype(np.float32)
    weight[2] = 0
    kind = GGMLQuantizationType.Q4_0
    stored = dequantize(quantize(weight, kind), kind)
    assert np.abs(students.q4_0(torch.from_numpy(weight)).numpy() - stored).max() < 1e-6


def test_the_pieces_that_are_kept_can_spell_every_word():
    pieces = [
        "[PAD]",
        "[UNK]",
        "[CLS]",
        "[SEP]",
        "[MASK]",
        "a",
        "##a",
        "日",
        "rain",
        "##ing",
        "1",
        "rare",
    ]
    assert chosen(pieces, [], 9) == [0, 1, 2, 3, 4, 5, 6, 8, 10]
    assert 7 not in chosen(pieces, [[11, 11]], 12)
    frequent = [
        "[PAD]",
        "[UNK]",
        "[CLS]",
        "[SEP]",
        "[MASK]",
        *(f"w{i}" for i in range(8000)),
        "x1",
        "x2",
    ]
    assert chosen(frequent, [[8006, 8006, 8005]], 8001)[-1] == 8006


@pytest.mark.process
async def test_the_trained_module_is_what_llama_cpp_computes(tmp_path: Path):
    whole = EncoderTrunk.read(SHIPPED)
    tensors = {name: whole.dense(name) for name in whole.tensors}
    student = students.cut_out(tensors, range(len(tensors["token_embd.weight"])), [0, 1], 64)
    small = files.cut(whole, range(len(tensors["token_embd.weight"])), [0, 1], 64, {
        "table": "Q4_0", "matrix": "Q4_0", "places": "Q8_0"})  # fmt: skip
    path = tmp_path / "two-layers.gguf"
    weights = files.weights_of(student, whole)
    small.write(path, [], np.zeros((0, 385), np.float32), name="", description="", weights=weights)
    ids = [[2, 900, 901, 950, 3], [2, 1200, 3]]
    ids = [[whole.fields["tokenizer.ggml.bos_token_id"][0], *one[1:-1]] for one in ids]
    async with encoder(path) as client:
        served = await vectors(client, ids)
    tokens, is_text = distilling.padded([np.array(one) for one in ids])
    with torch.no_grad():
        made = torch.nn.functional.normalize(student.eval()(tokens, is_text), dim=-1).numpy()
    assert (served * made).sum(1) == pytest.approx([1, 1], abs=2e-3)


def test_a_student_learns_the_likenesses_of_its_teacher():
    torch.manual_seed(1)
    shape = students.EncoderShape(50, 32, 1, 2, 64, 16)
    student = students.Student(shape)
    rng = np.random.default_rng(1)
    tokens = [rng.integers(1, 50, rng.integers(3, 9)).astype(np.int32) for _ in range(1500)]
    meaning = rng.normal(size=(2, 50, 8))
    taught = np.array([[m[t].mean(0) for t in tokens] for m in meaning], np.float16)
    task = distilling.DistillationTask(student, tokens, taught, batch_tokens=512, seed=1)
    before = task.score()["score"]
    optimizer = torch.optim.Adam(student.parameters(), lr=3e-3)
    for epoch in range(25):
        for batch in task.batches(epoch):
            optimizer.zero_grad()
            task.loss(batch)[0].backward()
            optimizer.step()
    assert task.score()["score"] > before + 0.2
