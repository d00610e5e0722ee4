"""What was trained and what llama.cpp computes, and the files between them."""

from __future__ import annotations

import json

import pytest
import torch

from edgeagent.catalog.gguf.model_facts_reader import inspect
from edgeagent.catalog.model_library import Library
from edgeagent.errors import ForgeFailed
from edgeagent.forge.assistant_task import AssistantTask, LossWeights
from edgeagent.forge.augment import Augmenter
from edgeagent.forge.decoder import Decoder, DecoderShape
from edgeagent.forge.distillation import TrainingPool
from edgeagent.forge.evaluate import evaluate, sample, slot_f1
from edgeagent.forge.export import ModelInfo, write_gguf, write_tools
from edgeagent.forge.model_record import write_record
from edgeagent.forge.parity import compare
from edgeagent.forge.quantize import quantize
from edgeagent.forge.trainer import Trainer, TrainingPlan


@pytest.fixture(scope="module")
def decoder(small, vocabulary, shape, tmp_path_factory):
    """A little trained, so that its most probable token stands out from the others."""
    torch.manual_seed(3)
    made = Decoder(shape)
    pool = TrainingPool(small.train, Augmenter(small.train, seed=1), 1)
    task = AssistantTask(
        made, vocabulary, small, pool, weights=LossWeights(), batch_tokens=512, seed=1
    )
    plan = TrainingPlan(epochs=4, learning_rate=3e-3, precision="f32")
    Trainer(made, task, plan, tmp_path_factory.mktemp("run"), is_quiet=True).run()
    return made.eval()


@pytest.fixture(scope="module")
def exported(decoder, vocabulary, tmp_path_factory):
    path = tmp_path_factory.mktemp("export") / "tiny.F16.gguf"
    write_gguf(decoder, vocabulary, ModelInfo("tiny", "A test"), path)
    return path


def test_llama_cpp_computes_what_torch_does(decoder, vocabulary, small, exported):
    texts = [item.text for item in sample(small.train, 50)]
    parity = compare(decoder, vocabulary, exported, texts)
    assert parity.n_prompts == 50
    assert parity.largest_difference < 0.05
    assert parity.n_equal == parity.n_same_ids == 50


def test_a_decoder_with_as_many_key_heads_as_heads_is_exported_too(vocabulary, small, tmp_path):
    torch.manual_seed(4)
    other = Decoder(
        DecoderShape(
            vocabulary.n_tokens, n_embd=96, n_layers=1, n_head=3, n_head_kv=3, n_ff=160, n_ctx=64
        )
    )
    path = tmp_path / "other.F16.gguf"
    write_gguf(other, vocabulary, ModelInfo("other", ""), path)
    parity = compare(other, vocabulary, path, [i.text for i in sample(small.validation, 10)])
    assert parity.largest_difference < 0.05


def test_our_own_reader_accepts_the_file(exported):
    facts = inspect(exported)
    assert facts.architecture == "llama"


def test_a_quantized_file_is_smaller_and_answers(small, vocabulary, exported, tmp_path):
    path = tmp_path / "tiny.Q8_0.gguf"
    quantize(exported, path, "Q8_0", 1)
    assert path.stat().st_size < 0.75 * exported.stat().st_size
    plain = evaluate(exported, vocabulary, small, every=4)
    smaller = evaluate(path, vocabulary, small, every=4)
    assert 0 <= smaller.assistant <= 1
    assert abs(plain.assistant - smaller.assistant) < 0.1
    with pytest.raises(ForgeFailed, match="There is no quantization 'Q9'"):
        quantize(exported, path, "Q9")
    with pytest.raises(ForgeFailed, match="is missing"):
        quantize(tmp_path / "none.gguf", path, "Q8_0")


def test_the_tools_of_the_daemon_are_those_of_the_corpus(small, tmp_path):
    write_tools(small, tmp_path / "edge-assistant.json")
    body = json.loads((tmp_path / "edge-assistant.json").read_text())
    assert body["out_of_scope"] == "oos"
    assert set(body["domains"]["skills"]) == {"GetWeather", "PlayMusic"}
    assert body["tools"]["PlayMusic"]["slots"] == list(small.slot_names["PlayMusic"])


def test_a_record_makes_a_shipped_model_of_a_file(exported, tmp_path):
    path = tmp_path / "tiny" / exported.name
    path.parent.mkdir()
    path.write_bytes(exported.read_bytes())
    write_record(path, "F16", {"assistant": 0.12349})
    library = Library(tmp_path / "none", tmp_path)
    (model,) = library.installed()
    assert (model.id, model.quant, model.source) == ("tiny", "F16", "shipped")
    assert model.thresholds == {"assistant": 0.1234}
    assert library.verify("tiny") is not None


@pytest.mark.parametrize(
    ("pairs", "f1"),
    [
        ([({"a": "x"}, {"a": "x"})], 1.0),
        ([({"a": "x"}, {"a": "y"})], 0.0),
        ([({"a": "x", "b": "y"}, {"a": "x"})], 2 / 3),
        ([({}, {"a": "x"}), ({"b": "y"}, {"b": "y"})], 2 / 3),
        ([], 1.0),
    ],
)
def test_slot_f1_counts_exact_pairs(pairs, f1):
    assert slot_f1(pairs) == pytest.approx(f1)
