"""A BERT encoder with matrices of 8-bit integers: its weights, its shares of work, and a real worker."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeagent.catalog.gguf.header import read_header
from edgeagent.catalog.install.safetensors import read_tensors
from edgeagent.engine.client import EngineClient
from edgeagent.engine.embedding.bert_weights import int8_model
from edgeagent.engine.embedding.int8_encoder import TOKENS_TOGETHER, batches, divided
from edgeagent.errors import ModelUnusable
from edgeagent.types.engine_config import EngineConfig
from edgeagent.types.unary_requests import EmbedSpec, Vectors
from tests.catalog.bert import embed, word_pieces
from tests.conftest import needs_int8

ENCODER = Path("models/edge-encoder/edge-encoder.gguf")
TEXTS = [
    "the cat sat on the mat",
    "where is my parcel",
    "unbelievable transcription",
    "rain " * 60,
]


def config(path: Path) -> EngineConfig:
    return EngineConfig(
        model_id="minilm", path=str(path), task="embed", n_ctx=512, n_seq=64, n_prefixes=0,
        n_threads=2, int8_kernels="default",
    )  # fmt: skip


def rows(vectors: Vectors) -> np.ndarray[Any, Any]:
    return np.frombuffer(vectors.data, "<f4").reshape(-1, vectors.n_dimensions)


@given(st.lists(st.integers(1, 512), max_size=40), st.integers(1, 8))
def test_every_text_is_in_one_share_and_no_share_is_much_longer(lengths, n_shares):
    shares = divided(lengths, n_shares)
    assert sorted(i for share in shares for i in share) == list(range(len(lengths)))
    assert len(shares) == min(n_shares, len(lengths))
    sums = [sum(lengths[i] for i in share) for share in shares]
    assert not sums or max(sums) - min(sums) <= max(lengths)
    for share in shares:
        assert [lengths[i] for i in share] == sorted((lengths[i] for i in share), reverse=True)
        together = list(batches(share, lengths))
        assert [i for batch in together for i in batch] == share
        assert all(len(b) == 1 or sum(lengths[i] for i in b) <= TOKENS_TOGETHER for b in together)


@pytest.fixture
def tiny(tmp_path: Path) -> Any:
    """Writes a BERT of one layer with matrices of a type; the values of its tensors."""

    def write(kind: str, n_heads: int = 4, **changes: Any) -> tuple[Path, dict[str, Any]]:
        draw = np.random.default_rng(1)
        width, n_ff = 32, 64
        shapes = {
            "token_embd.weight": (50, width), "position_embd.weight": (16, width),
            "token_types.weight": (2, width), "token_embd_norm.weight": (width,),
            "token_embd_norm.bias": (width,),
        }  # fmt: skip
        for name, n_out, n_in in (("attn_q", width, width), ("attn_k", width, width),
                                  ("attn_v", width, width), ("attn_output", width, width),
                                  ("ffn_up", n_ff, width), ("ffn_down", width, n_ff)):  # fmt: skip
            shapes |= {f"blk.0.{name}.weight": (n_out, n_in), f"blk.0.{name}.bias": (n_out,)}
        for name in ("attn_output_norm", "layer_output_norm"):
            shapes |= {f"blk.0.{name}.weight": (width,), f"blk.0.{name}.bias": (width,)}
        made = {name: draw.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
        made |= changes
        writer = gguf.GGUFWriter(path := tmp_path / f"{kind}.gguf", "bert")
        writer.add_block_count(1)
        writer.add_context_length(16)
        writer.add_embedding_length(width)
        writer.add_feed_forward_length(n_ff)
        writer.add_head_count(n_heads)
        writer.add_layer_norm_eps(1e-12)
        for name, value in made.items():
            stored = gguf.GGMLQuantizationType[kind if value.ndim == 2 else "F32"]
            writer.add_tensor(name, gguf.quantize(value, stored), raw_dtype=stored)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        return path, made

    return write


@needs_int8
@pytest.mark.parametrize("kind", ["F32", "F16", "BF16", "Q8_0"])
def test_weights_of_each_type_compute_what_their_values_do(tiny: Any, kind: str):
    import ctranslate2

    path, made = tiny(kind)
    encoder = ctranslate2.Encoder("tiny", compute_type="float32", files=int8_model(path))
    tokens = [7, 3, 41, 49, 0]
    found = np.asarray(encoder.forward_batch([tokens]).last_hidden_state)[0].mean(axis=0)
    names = {
        "token_embd": "embeddings.word_embeddings", "position_embd": "embeddings.position_embeddings",
        "token_types": "embeddings.token_type_embeddings", "token_embd_norm": "embeddings.LayerNorm",
        "attn_q": "attention.self.query", "attn_k": "attention.self.key",
        "attn_v": "attention.self.value", "attn_output": "attention.output.dense",
        "attn_output_norm": "attention.output.LayerNorm", "ffn_up": "intermediate.dense",
        "ffn_down": "output.dense", "layer_output_norm": "output.LayerNorm",
    }  # fmt: skip
    published = {}
    for name, value in made.items():
        stem, part = name.removeprefix("blk.0.").rsplit(".", 1)
        in_layer = "encoder.layer.0." if name.startswith("blk.") else ""
        published[f"{in_layer}{names[stem]}.{part}"] = value
    expected = embed(published, 4, 1e-12, tokens)
    assert found @ expected / np.linalg.norm(found) > 0.999


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"blk.0.attn_q_norm.weight": np.ones(32, np.float32)}, "attn_q_norm"),
        ({"blk.0.ffn_up.weight": np.ones((96, 32), np.float32)}, "ffn_up"),
        ({"n_heads": 1 << 20}, "heads for a width of 32"),
        ({"n_heads": 5}, "5 heads"),
        ({"blk.0.ffn_down.weight": np.full((32, 64), np.nan, np.float32)}, "no numbers"),
    ],
)
def test_what_is_no_plain_bert_is_refused_with_the_way_out(tiny: Any, changes, message):
    path, _ = tiny("F32", **changes)
    with pytest.raises(ModelUnusable, match=rf"{message}.*int8_encoders to off"):
        int8_model(path)


@pytest.fixture(scope="module")
async def worker(minilm: Path) -> AsyncIterator[EngineClient]:
    client = await EngineClient.start(config(minilm), timeout_s=60)
    yield client
    await client.close()


@needs_int8
async def test_vectors_are_near_those_of_the_published_weights(
    worker: EngineClient, minilm_published: Path
):
    vocabulary = (minilm_published / "vocab.txt").read_text().splitlines()
    tensors = read_tensors(minilm_published / "model.safetensors")
    tokens = [word_pieces(text, vocabulary) for text in TEXTS]
    found = await worker.ask(EmbedSpec(inputs=list(TEXTS)))
    assert found.n_prompt == sum(map(len, tokens))
    for row, ids in zip(rows(found), tokens, strict=True):
        assert row @ embed(tensors, 12, 1e-12, ids) > 0.99


@needs_int8
async def test_a_text_has_the_same_vector_alone_and_among_others(worker: EngineClient):
    many = [f"{text} {i}" for i in range(5) for text in TEXTS]
    together = rows(await worker.ask(EmbedSpec(inputs=list(many))))
    some = [EmbedSpec(inputs=[text]) for text in many[:5]]
    for row, alone in zip(together, await asyncio.gather(*map(worker.ask, some)), strict=False):
        assert row @ rows(alone)[0] > 1 - 1e-4


@needs_int8
async def test_who_gives_up_leaves_the_others_their_turn(worker: EngineClient):
    endless = asyncio.create_task(worker.ask(EmbedSpec(inputs=[[1000] * 500] * 2000)))
    await worker.ask(EmbedSpec(inputs=["rain"]))
    endless.cancel()
    with pytest.raises(asyncio.CancelledError):
        await endless
    assert worker.n_open == 0
    assert len(rows(await worker.ask(EmbedSpec(inputs=["rain", "sun"])))) == 2


@needs_int8
async def test_another_file_is_computed_by_llama_cpp():
    assert "Q4_0" in {tensor.type.name for tensor in read_header(ENCODER).tensors}
    client = await EngineClient.start(config(ENCODER), timeout_s=60)
    try:
        assert rows(await client.ask(EmbedSpec(inputs=["rain"]))).shape == (1, 384)
    finally:
        await client.close()
