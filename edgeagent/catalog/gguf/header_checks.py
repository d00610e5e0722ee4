"""Refuses a readable GGUF header that would crash the engine, or that no engine could run.

llama.cpp checks the shape of every tensor and throws an exception; but it *asserts* many of the numbers
from which it computes those shapes, and a failed assert ends the process. So these checks are strict about
present values that crash it, and lenient about missing ones: architectures have different keys, and an
unknown key may belong to a future model. Models that pass are loaded on trial in a worker before they are
served.

Source: the asserts of llama.cpp's llama-model.cpp and llama-vocab.cpp (July 2026), and
`tests/catalog/mutants.py`, whose survivors were loaded one by one.
"""

from __future__ import annotations

import re

from edgeagent.catalog.gguf.header import TOKENS_KEY, ArrayValue, Header
from edgeagent.catalog.gguf.metadata import NO_TOKEN, HeaderMetadata

# llama.cpp's own array bounds: LLAMA_MAX_LAYERS and LLAMA_MAX_EXPERTS.
MAX_LAYERS = 512
MAX_EXPERTS = 1024
MAX_CONTEXT = 1 << 26
MAX_WIDTH = 1 << 20

_LAYER = re.compile(r"(?P<stack>enc\.|dec\.)?blk\.(?P<index>\d{1,9})\.")
_ATTENTION = re.compile(r"blk\.\d+\.attn_(q|qkv|q_a)\.weight")
_KEYS = re.compile(r"blk\.(\d{1,4})\.attn_k\.weight")
_NOT_MODELS = {"adapter": "a LoRA adapter", "mmproj": "a vision projector", "imatrix": "an imatrix"}
# Integers and activation formats have no kernels for weights.
_NOT_WEIGHTS = ("I8", "I16", "I32", "I64", "F64", "Q8_1", "Q8_K")
_WEIGHTS = re.compile(r"(token_embd|output|attn_\w+|ffn_(up|gate|down)\w*)\.weight$")
# Elementwise operations with norms and biases exist only for F32.
_ADDED = re.compile(r"(norm\.weight|\.bias)$")
_ROPE_SCALINGS = ("none", "linear", "yarn", "longrope")
_TOKEN_ID = re.compile(r"tokenizer\.ggml\.\w+_token_id")
# Keys that are divisors or sizes: zero is never valid.
_POSITIVE = (".ssm.conv_kernel", ".ssm.inner_size", ".ssm.state_size", ".shortconv.l_cache")


def check(header: Header) -> None:
    """Raise GGUFRefused if the model that `header` describes contradicts itself."""
    fields = HeaderMetadata(header)
    _check_kind(fields)
    n_layers = _check_layers(fields)
    _check_width(fields)
    _check_attention(fields, n_layers)
    _check_experts(fields, n_layers)
    _check_floats(fields)
    _check_rope(fields, n_layers)
    _check_vocabulary(fields)


def _check_kind(fields: HeaderMetadata) -> None:
    kind = fields.text("general.type")
    if kind in _NOT_MODELS:
        raise fields.refused(f"is {_NOT_MODELS[kind]}", "name the file of a complete model")
    n_parts = fields.count("split.count", 0, 65535) or 0
    if n_parts > 1:
        raise fields.refused(
            f"is one of {n_parts} parts", "join them with llama-gguf-split --merge first"
        )
    if not fields.header.tensors:
        raise fields.refused("has no tensors", "name the file of a complete model")
    for tensor in fields.header.tensors:
        kind = tensor.type.name
        norm = _ADDED.search(tensor.name) and kind != "F32"
        if norm or (kind in _NOT_WEIGHTS and _WEIGHTS.search(tensor.name)):
            raise fields.refused(
                f"stores {tensor.name!r} as {kind}, which the engine cannot compute with",
                "use another quantization of the model",
            )
    fields.count("general.file_type", 0, 65535)
    fields.count("general.quantization_version", 0, 65535)


def _check_layers(fields: HeaderMetadata) -> int:
    n_layers = fields.required(".block_count", 1, MAX_LAYERS)
    fields.count(".nextn_predict_layers", 0, n_layers)
    fields.count(".leading_dense_block_count", 0, n_layers)
    n_decoder = fields.count(".decoder_block_count", 1, MAX_LAYERS) or n_layers
    for stack, n_wanted in (("", n_layers), ("enc.", n_layers), ("dec.", n_decoder)):
        found = {
            int(match["index"])
            for tensor in fields.header.tensors
            if (match := _LAYER.match(tensor.name)) and (match["stack"] or "") == stack
        }
        if found and (max(found) + 1 != n_wanted or len(found) != n_wanted):
            raise fields.refused(
                f"says it has {n_wanted} layers, but has tensors of {len(found)}"
                f" ({stack}blk.{min(found)} to {stack}blk.{max(found)})"
            )
    return n_layers


def _check_width(fields: HeaderMetadata) -> None:
    n_embd = fields.required(".embedding_length", 1, MAX_WIDTH)
    fields.required(".context_length", 1, MAX_CONTEXT)
    for name in _POSITIVE:
        fields.count(name, 1, MAX_WIDTH)
    for tensor in fields.header.tensors:
        if tensor.name == "token_embd.weight" and tensor.shape[0] != n_embd:
            raise fields.refused(
                f"says its embedding has {n_embd} numbers, but token_embd.weight"
                f" has {tensor.shape[0]}"
            )


def _check_attention(fields: HeaderMetadata, n_layers: int) -> None:
    """Head counts are divisors. Only layers without attention may state 0."""
    n_embd = fields.required(".embedding_length", 1, MAX_WIDTH)
    fields.per_layer(".feed_forward_length", n_layers, 0, MAX_WIDTH * 64)
    heads = fields.per_layer(".attention.head_count", n_layers, 0, MAX_WIDTH)
    heads_kv = fields.per_layer(".attention.head_count_kv", n_layers, 0, MAX_WIDTH) or heads
    key_length = fields.count(".attention.key_length", 1, MAX_WIDTH)
    fields.count(".attention.value_length", 1, MAX_WIDTH)
    fields.count(".attention.sliding_window", 0, 0xFFFFFFFF)
    if not any(_ATTENTION.match(tensor.name) for tensor in fields.header.tensors):
        return
    if not heads or not heads_kv or not any(heads):
        raise fields.refused(f"has attention tensors but {fields.key('.attention.head_count')} 0")
    for layer, (n_head, n_head_kv) in enumerate(zip(heads, heads_kv, strict=True)):
        if n_head and n_head_kv and n_head % n_head_kv:
            raise fields.refused(
                f"has {n_head} heads and {n_head_kv} key-value heads in layer {layer},"
                " the second must divide the first"
            )
        if n_head and key_length is None and n_embd % n_head:
            raise fields.refused(f"divides an embedding of {n_embd} by {n_head} heads")
    _check_keys_fit(fields, heads_kv, key_length)
    scalar_kv = not isinstance(
        fields.metadata.get(fields.key(".attention.head_count_kv")), ArrayValue
    )
    if scalar_kv and not all(heads_kv):
        raise fields.refused(f"has 0 in {fields.key('.attention.head_count_kv')!r}")


def _check_keys_fit(
    fields: HeaderMetadata, heads_kv: tuple[int, ...], key_length: int | None
) -> None:
    """A stated head width must match the key tensors: for some architectures llama.cpp asserts this.

    Not checked for models with heads of several widths (sliding windows, linear attention).
    """
    several = any("_swa" in key or ".kda." in key for key in fields.metadata)
    if key_length is None or several:
        return
    for tensor in fields.header.tensors:
        match = _KEYS.fullmatch(tensor.name)
        n_head_kv = heads_kv[int(match[1])] if match else 0
        if n_head_kv and tensor.shape[1:2] != (n_head_kv * key_length,):
            raise fields.refused(
                f"has {n_head_kv} key-value heads of {key_length} numbers, but {tensor.name!r}"
                f" is {tensor.shape}"
            )


def _check_experts(fields: HeaderMetadata, n_layers: int) -> None:
    n_expert = fields.count(".expert_count", 0, MAX_EXPERTS) or 0
    used = fields.per_layer(".expert_used_count", n_layers, 0, n_expert) or (0,)
    if n_expert and not max(used):
        raise fields.refused(f"has {n_expert} experts and uses none of them")
    n_groups = fields.count(".expert_group_count", 0, max(0, n_expert - 1)) or 0
    n_groups_used = fields.count(".expert_group_used_count", 0, max(0, n_groups)) or 0
    if n_groups > 1 and (n_expert % n_groups or not 0 < n_groups_used < n_groups):
        raise fields.refused(
            f"has {n_expert} experts in {n_groups} groups and uses {n_groups_used} of the groups"
        )
    gates = [t for t in fields.header.tensors if t.name.endswith(".ffn_gate_inp.weight")]
    for gate in gates:
        if len(gate.shape) < 2 or gate.shape[1] != n_expert:
            raise fields.refused(f"has {n_expert} experts, but {gate.name!r} is {gate.shape}")


def _check_floats(fields: HeaderMetadata) -> None:
    """Floating-point values of the model must be finite, and epsilons positive."""
    for key, value in fields.metadata.items():
        if not key.startswith(f"{fields.architecture}."):
            continue
        if isinstance(value, float):
            fields.number(key)
        if "epsilon" in key and not ((fields.number(key) or 0) > 0):
            raise fields.refused(f"has {value} in {key!r}, an epsilon must be above 0")


def _check_rope(fields: HeaderMetadata, n_layers: int) -> None:
    for name in (".rope.freq_base", ".rope.freq_base_swa"):
        base = fields.number(name)
        if base is not None and base <= 0:
            raise fields.refused(f"has {base} in {fields.key(name)!r}, it must be above 0")
    for name in (".rope.scaling.factor", ".rope.scale_linear"):
        factor = fields.number(name)
        if factor is not None and factor < 0:
            raise fields.refused(f"has {factor} in {fields.key(name)!r}, it must be 0 or above")
    scaling = fields.text(".rope.scaling.type")
    if scaling is not None and scaling not in _ROPE_SCALINGS:
        raise fields.refused(
            f"has {scaling[:80]!r} as rope scaling, the engine knows {', '.join(_ROPE_SCALINGS)}"
        )
    fields.count(".rope.scaling.original_context_length", 1, MAX_CONTEXT)
    n_rot = fields.count(".rope.dimension_count", 0, MAX_WIDTH) or 0
    heads = fields.per_layer(".attention.head_count", n_layers, 0, MAX_WIDTH) or (0,)
    n_embd = fields.required(".embedding_length", 1, MAX_WIDTH)
    head_dim = fields.count(".attention.key_length", 1, MAX_WIDTH)
    if head_dim is None and heads[0]:
        head_dim = n_embd // heads[0]
    if n_rot % 2 or (head_dim and n_rot > head_dim):
        raise fields.refused(
            f"rotates {n_rot} of {head_dim} numbers of a head; the number must be even and at most {head_dim}"
        )


def _check_vocabulary(fields: HeaderMetadata) -> None:
    tokens = fields.array(TOKENS_KEY, ("string",))
    fields.text("tokenizer.ggml.model")
    fields.text("tokenizer.ggml.pre")
    fields.text("tokenizer.chat_template")
    n_stated = fields.count(".vocab_size", 0, 1 << 24)
    n_vocab = tokens.n_items if tokens else n_stated
    if tokens is not None:
        _check_tokens(fields, tokens)
    if n_vocab is None:
        return
    if tokens and n_stated not in (None, n_vocab):
        raise fields.refused(f"says its vocabulary has {n_stated} tokens, but lists {n_vocab}")
    for tensor in fields.header.tensors:
        if tensor.name in ("token_embd.weight", "output.weight") and tensor.shape[1:2] != (
            n_vocab,
        ):
            raise fields.refused(
                f"has {n_vocab} tokens, but {tensor.name} has the shape {tensor.shape}"
            )
    _check_token_ids(fields, n_vocab)


def _check_tokens(fields: HeaderMetadata, tokens: ArrayValue) -> None:
    if not tokens.n_items:
        raise fields.refused("has a vocabulary of 0 tokens")
    if tokens.n_distinct != tokens.n_items:
        raise fields.refused(
            f"lists {tokens.n_items} tokens of which only {tokens.n_distinct} differ,"
            " and the engine crashes on a token that is listed twice"
        )
    for name, item_types in (
        ("tokenizer.ggml.scores", ("f32", "i32")),
        ("tokenizer.ggml.token_type", ("i32", "u32")),
    ):
        items = fields.array(name, item_types)
        if items is not None and items.n_items != tokens.n_items:
            raise fields.refused(
                f"has {items.n_items} values in {name!r} for {tokens.n_items} tokens"
            )
    fields.array("tokenizer.ggml.merges", ("string",))
    fields.array("tokenizer.ggml.precompiled_charsmap", ("u8", "i8"))


def _check_token_ids(fields: HeaderMetadata, n_vocab: int) -> None:
    for key in fields.metadata:
        if not _TOKEN_ID.fullmatch(key):
            continue
        token = fields.count(key, 0, NO_TOKEN)
        if token is not None and token != NO_TOKEN and token >= n_vocab:
            raise fields.refused(f"has token {token} in {key!r}, of {n_vocab} tokens")
    tokenizer = fields.text("tokenizer.ggml.model")
    if tokenizer == "rwkv" and "rwkv" not in fields.architecture:
        # This tokenizer ends the process if the vocabulary was made for another one.
        raise fields.refused(f"has an rwkv tokenizer in a model of {fields.architecture}")
    if tokenizer == "bert":
        # The engine adds these tokens around every text; the numbers are its defaults.
        for name, default in (("bos", 101), ("seperator", 102), ("unknown", 100)):
            token = fields.count(f"tokenizer.ggml.{name}_token_id", 0, NO_TOKEN)
            if (default if token is None else token) >= n_vocab:
                raise fields.refused(f"has a bert tokenizer without a {name} token")
    for name in ("bos", "eos"):
        adds = fields.flag(f"tokenizer.ggml.add_{name}_token")
        if adds and fields.count(f"tokenizer.ggml.{name}_token_id", 0, NO_TOKEN) == NO_TOKEN:
            raise fields.refused(f"adds a {name} token to each text but has none")
