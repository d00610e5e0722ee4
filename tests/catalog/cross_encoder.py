"""A small BERT with a classification head, as a GGUF file: what a reranker is, with random weights.

`CrossEncoder.score` computes in numpy what the engine should say of a pair.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import gguf
import numpy as np

from edgeagent.catalog.install.convert import gguf_name
from tests.catalog.bert import Array, classify, word_pieces

N_EMBD, N_FF, N_HEADS, N_LAYERS, N_CTX = 64, 128, 4, 2, 128
EPS = 1e-12
SPECIAL = {"[PAD]": "padding", "[UNK]": "unknown", "[CLS]": "bos", "[SEP]": "seperator"}
TEXT = (
    "the a is was on in of and rain fell all day long cat sat mat dog ran home train late where when "
    "why how my parcel package arrived yesterday lost found battery empty full charge"
)
VOCABULARY = [*SPECIAL, *TEXT.split(), "##s", "##ed", *(f"w{i}" for i in range(200))]
_HEAD = {"pooler.dense": "cls", "classifier": "cls.output"}


@dataclass(frozen=True)
class CrossEncoder:
    """The file, and the same weights by the names that transformers gives them."""

    path: Path
    tensors: dict[str, Array]

    def score(self, query: str, document: str) -> float:
        """0..1, of `[CLS] query [SEP] document [SEP]`."""
        tokens = word_pieces(query, VOCABULARY) + word_pieces(document, VOCABULARY)[1:]
        return 1 / (1 + math.exp(-classify(self.tensors, N_HEADS, EPS, tokens)))


def write_cross_encoder(path: Path, *, seed: int = 3, n_labels: int = 1) -> CrossEncoder:
    """Write one to `path`. Matrices are float16, so that is what `tensors` has."""
    random = np.random.default_rng(seed)
    tensors = {
        f"{stem}.{kind}": _weights(random, f"{stem}.{kind}", shape)
        for stem, shape in _shapes(n_labels).items()
        for kind in (
            ["weight"] if "embeddings" in stem and "Norm" not in stem else ["weight", "bias"]
        )
    }
    writer = gguf.GGUFWriter(str(path), "bert")
    writer.add_block_count(N_LAYERS)
    writer.add_context_length(N_CTX)
    writer.add_embedding_length(N_EMBD)
    writer.add_feed_forward_length(N_FF)
    writer.add_head_count(N_HEADS)
    writer.add_layer_norm_eps(EPS)
    writer.add_causal_attention(False)
    writer.add_pooling_type(gguf.PoolingType.RANK)
    if n_labels > 1:
        writer.add_classifier_output_labels([f"label {i}" for i in range(n_labels)])
    _write_vocabulary(writer)
    for name, array in tensors.items():
        stem, _, kind = name.rpartition(".")
        new_name = f"{_HEAD[stem]}.{kind}" if stem in _HEAD else gguf_name(name)
        assert new_name is not None
        is_matrix = array.ndim == 2 and "embeddings" not in name
        writer.add_tensor(new_name, array.astype(np.float16 if is_matrix else np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return CrossEncoder(path, tensors)


def _shapes(n_labels: int) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {
        "embeddings.word_embeddings": (len(VOCABULARY), N_EMBD),
        "embeddings.position_embeddings": (N_CTX, N_EMBD),
        "embeddings.token_type_embeddings": (2, N_EMBD),
        "embeddings.LayerNorm": (N_EMBD,),
        "pooler.dense": (N_EMBD, N_EMBD),
        "classifier": (n_labels, N_EMBD),
    }
    for i in range(N_LAYERS):
        layer = f"encoder.layer.{i}"
        for part in ("query", "key", "value"):
            shapes[f"{layer}.attention.self.{part}"] = (N_EMBD, N_EMBD)
        shapes[f"{layer}.attention.output.dense"] = (N_EMBD, N_EMBD)
        shapes[f"{layer}.attention.output.LayerNorm"] = (N_EMBD,)
        shapes[f"{layer}.intermediate.dense"] = (N_FF, N_EMBD)
        shapes[f"{layer}.output.dense"] = (N_EMBD, N_FF)
        shapes[f"{layer}.output.LayerNorm"] = (N_EMBD,)
    return shapes


def _weights(random: np.random.Generator, name: str, shape: tuple[int, ...]) -> Array:
    """Strong attention, so that the first token, which the head reads, learns of all the others."""
    values = random.standard_normal(shape[:1] if name.endswith(".bias") else shape)
    values *= 0.5 if ".attention." in name else 0.2
    if name.endswith("LayerNorm.weight"):
        values += 1
    return np.asarray(values.astype(np.float16).astype(np.float32))


def _write_vocabulary(writer: gguf.GGUFWriter) -> None:
    writer.add_tokenizer_model("bert")
    writer.add_token_list(
        [
            token if token in SPECIAL else token[2:] if token.startswith("##") else f"\u2581{token}"
            for token in VOCABULARY
        ]
    )
    writer.add_token_types([3 if token in SPECIAL else 1 for token in VOCABULARY])
    writer.add_token_type_count(2)
    for token, role in SPECIAL.items():
        writer.add_uint32(f"tokenizer.ggml.{role}_token_id", VOCABULARY.index(token))
