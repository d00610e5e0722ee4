"""Models of any shape with random weights, as GGUF files that llama.cpp loads and runs.

What memory and speed depend on is real in them: architecture, shape, tensor types, vocabulary. What
they say is noise. The vocabulary is taken from another file and repeated up to the wanted length,
so that a large one costs what a large one costs.
"""

from __future__ import annotations

import mmap
import struct
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import gguf
import numpy as np

# Where the float16 scales of a block lie, in float16 steps from its beginning. Random bytes there
# would be infinities.
_SCALES = {"Q4_0": (0,), "Q4_1": (0, 1), "Q8_0": (0,), "Q4_K": (0, 1), "Q6_K": (104,)}
RANK = 4
_N_BYTES = struct.Struct("<Q").pack
RANK_TEMPLATE = (
    "<|im_start|>user\n<Query>: {query}\n<Document>: {document}<|im_end|>\n<|im_start|>assistant\n"
)


Array = np.ndarray[tuple[int, ...], np.dtype[Any]]
N_RANDOM = 1 << 18  # numbers that are drawn for a tensor


@dataclass(frozen=True)
class Design:
    """What to build. `n_vocab` None keeps the donor's vocabulary; `output` None ties the output;
    `pooling` is llama.h's number, of a model that embeds, or of one that ranks by saying yes or no."""

    architecture: str
    n_layers: int
    n_embd: int
    n_head: int
    n_head_kv: int
    head_dim: int
    n_ff: int
    type: str
    embedding: str = "Q8_0"
    output: str | None = None
    n_vocab: int | None = None
    sliding_window: int | None = None
    n_ctx_train: int = 8192
    pooling: int | None = None


def write_model(path: Path, design: Design, donor: Path, seed: int = 1) -> Path:
    """Write `design` to `path` with the tokenizer of `donor` (a GGUF with a BPE vocabulary)."""
    writer = _Writer(str(path), design.architecture)
    writer.add_name(path.stem)
    writer.add_context_length(design.n_ctx_train)
    writer.add_embedding_length(design.n_embd)
    writer.add_block_count(design.n_layers)
    writer.add_feed_forward_length(design.n_ff)
    writer.add_head_count(design.n_head)
    writer.add_head_count_kv(design.n_head_kv)
    writer.add_key_length(design.head_dim)
    writer.add_value_length(design.head_dim)
    writer.add_rope_dimension_count(design.head_dim)
    writer.add_layer_norm_rms_eps(1e-5)
    if design.sliding_window is not None:
        writer.add_sliding_window(design.sliding_window)
    if design.pooling is not None:
        writer.add_uint32(f"{design.architecture}.pooling_type", design.pooling)
    if design.pooling == RANK:
        writer.add_classifier_output_labels(["yes", "no"])
        writer.add_string("tokenizer.chat_template.rerank", RANK_TEMPLATE)
    n_vocab = _add_vocabulary(writer, donor, design.n_vocab)
    random = np.random.default_rng(seed)
    for name, shape, kind in _tensors(design, n_vocab):
        data = _weights(random, shape, kind)
        if kind in ("F32", "F16"):
            writer.add_tensor(name, data)
        else:
            writer.add_tensor(name, data, raw_dtype=gguf.GGMLQuantizationType[kind])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@cache
def _vocabulary(donor: Path) -> tuple[list[str], list[int], list[str], str]:
    """Tokens, their types, merges and the splitting rule. gguf's reader takes seconds for them."""
    with donor.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        at = _value_at(data, "pre")
        (n_bytes,) = struct.unpack_from("<Q", data, at)
        pre = data[at + 8 : at + 8 + n_bytes].decode()
        at = _value_at(data, "token_type")
        kind, n_types = struct.unpack_from("<IQ", data, at)
        assert kind == gguf.GGUFValueType.INT32
        types = list(struct.unpack_from(f"<{n_types}i", data, at + 12))
        return _strings(data, "tokens"), types, _strings(data, "merges"), pre


def _value_at(data: mmap.mmap, name: str) -> int:
    """Where the value of a key of the tokenizer begins, behind its type."""
    key = f"tokenizer.ggml.{name}".encode()
    return data.find(struct.pack("<Q", len(key)) + key) + 8 + len(key) + 4


def _strings(data: mmap.mmap, name: str) -> list[str]:
    at = _value_at(data, name)
    kind, n_strings = struct.unpack_from("<IQ", data, at)
    assert kind == gguf.GGUFValueType.STRING
    at, found = at + 12, []
    for _ in range(n_strings):
        (n_bytes,) = struct.unpack_from("<Q", data, at)
        found.append(data[at + 8 : at + 8 + n_bytes].decode())
        at += 8 + n_bytes
    return found


class _Writer(gguf.GGUFWriter):
    """Packs a list of texts at once: gguf packs each of 150,000 tokens by a call of its own."""

    def _pack_val(self, val: Any, vtype: Any, *args: Any, **kwargs: Any) -> bytes:
        if not (isinstance(val, list) and val and isinstance(val[0], str)):
            return bytes(super()._pack_val(val, vtype, *args, **kwargs))
        head: bytes = super()._pack_val(val[:1], vtype, *args, **kwargs)
        packed = (text for item in map(str.encode, val) for text in (_N_BYTES(len(item)), item))
        # Behind the type of the array and that of its items is their number.
        return head[: -16 - len(val[0].encode())] + _N_BYTES(len(val)) + b"".join(packed)


def _add_vocabulary(writer: gguf.GGUFWriter, donor: Path, n_vocab: int | None) -> int:
    """Copy the donor's tokens, types and merges; repeat them with a number up to `n_vocab`."""
    vocabulary = _vocabulary(donor)
    tokens, types, merges = map(list, vocabulary[:3])
    n_own, n_merges = len(tokens), len(merges)
    n_vocab = n_vocab or n_own
    for i in range(n_own, n_vocab):
        tokens.append(f"{tokens[i % n_own]}{i}")
        types.append(1)
        left, _, right = merges[i % n_merges].partition(" ")
        merges.append(f"{left}{i} {right}")
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(vocabulary[3])
    writer.add_token_list(tokens[:n_vocab])
    writer.add_token_types(types[:n_vocab])
    writer.add_token_merges(merges[:n_vocab])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_chat_template("{% for m in messages %}{{ m.content }}{% endfor %}")
    return n_vocab


def _tensors(design: Design, n_vocab: int) -> list[tuple[str, tuple[int, ...], str]]:
    """Name, shape (rows first) and type of every tensor that the architecture asks for."""
    wide, narrow = design.n_head * design.head_dim, design.n_head_kv * design.head_dim
    found = [
        ("token_embd.weight", (n_vocab, design.n_embd), design.embedding),
        ("output_norm.weight", (design.n_embd,), "F32"),
    ]
    if design.output is not None:
        found.append(("output.weight", (n_vocab, design.n_embd), design.output))
    if design.pooling == RANK:
        found.append(("cls.output.weight", (2, design.n_embd), "F32"))
    for i in range(design.n_layers):
        layer = {
            "attn_norm": (design.n_embd,),
            "attn_q": (wide, design.n_embd),
            "attn_k": (narrow, design.n_embd),
            "attn_v": (narrow, design.n_embd),
            "attn_output": (design.n_embd, wide),
            "ffn_norm": (design.n_embd,),
            "ffn_gate": (design.n_ff, design.n_embd),
            "ffn_up": (design.n_ff, design.n_embd),
            "ffn_down": (design.n_embd, design.n_ff),
        } | _extra(design)
        for name, shape in layer.items():
            kind = design.type if len(shape) > 1 else "F32"
            found.append((f"blk.{i}.{name}.weight", shape, kind))
        if design.architecture == "qwen2":
            for name, width in (("attn_q", wide), ("attn_k", narrow), ("attn_v", narrow)):
                found.append((f"blk.{i}.{name}.bias", (width,), "F32"))
    return found


def _extra(design: Design) -> dict[str, tuple[int, ...]]:
    if design.architecture not in ("gemma3", "qwen3"):
        return {}
    norms = {"attn_q_norm": (design.head_dim,), "attn_k_norm": (design.head_dim,)}
    if design.architecture == "qwen3":
        return norms
    return norms | {
        "post_attention_norm": (design.n_embd,),
        "post_ffw_norm": (design.n_embd,),
    }


def _weights(random: np.random.Generator, shape: tuple[int, ...], kind: str) -> Array:
    """Random weights of about 0.02: float arrays, or uint8 [rows, bytes of a row] of blocks."""
    if kind in ("F32", "F16"):
        if len(shape) == 1:
            return np.ones(shape, np.float32)
        values = _repeated(random.standard_normal(N_RANDOM, np.float32) * np.float32(0.02), shape)
        return values.astype(np.float16 if kind == "F16" else np.float32)
    block, n_bytes = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[kind]]
    blocks = random.integers(0, 256, (N_RANDOM // block, n_bytes), np.uint8)
    halves = blocks.view(np.float16)
    for at in _SCALES[kind]:
        halves[:, at] = 0.0002 if kind != "Q4_0" else 0.003
    return _repeated(blocks, (shape[0], shape[1] // block * n_bytes))


def _repeated(values: Array, shape: tuple[int, ...]) -> Array:
    """Values over and over: random ones for a whole vocabulary take seconds to draw."""
    return np.resize(values, shape)


# Between 80 and 310 MB; shapes, types, vocabularies, heads and output matrices all differ.
DESIGNS = {
    "llama-q4_0": Design("llama", 12, 1024, 16, 4, 64, 2816, "Q4_0"),
    "qwen2-q8_0": Design("qwen2", 10, 896, 14, 2, 64, 4864, "Q8_0", n_vocab=151_936),
    "gemma3-f16": Design(
        "gemma3", 8, 640, 4, 1, 256, 2048, "F16", n_vocab=131_072, sliding_window=512
    ),
    "llama-q4_k": Design("llama", 16, 1024, 16, 8, 128, 3072, "Q4_K", embedding="Q6_K"),
    "llama-q4_0-output": Design(
        "llama", 8, 768, 12, 12, 64, 2048, "Q4_0", embedding="Q4_0", output="Q6_K"
    ),
    "llama-wide-q8_0": Design("llama", 6, 1536, 24, 8, 64, 4096, "Q8_0"),
    "qwen2-deep-q4_k": Design("qwen2", 28, 768, 12, 2, 64, 2048, "Q4_K", embedding="Q6_K"),
    "llama-q4_0-tied": Design("llama", 8, 768, 12, 12, 64, 2048, "Q4_0", embedding="Q4_0"),
}
