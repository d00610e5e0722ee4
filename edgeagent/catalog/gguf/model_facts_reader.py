"""Reads the facts of a model file before it is loaded.

Every external file goes through `inspect`: it reads the header within limits, refuses what would crash the
engine, and returns plain facts for computing memory and describing the model. No weights are read.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from pathlib import Path

from edgeagent.catalog.gguf import header_checks
from edgeagent.catalog.gguf.ggml_types import FILE_TYPES
from edgeagent.catalog.gguf.header import TOKENS_KEY, Header, HeaderLimits, Scalar, read_header
from edgeagent.catalog.gguf.header_checks import MAX_CONTEXT, MAX_EXPERTS, MAX_LAYERS, MAX_WIDTH
from edgeagent.catalog.gguf.metadata import NO_TOKEN, HeaderMetadata
from edgeagent.catalog.gguf.model_facts import ModelFacts

POOLING_TYPES = {0: "none", 1: "mean", 2: "cls", 3: "last", 4: "rank"}
_ROPE = ("dimension_count", "freq_base", "scaling.type", "scaling.factor")


def inspect(path: Path | str, limits: HeaderLimits | None = None) -> ModelFacts:
    """Read, check and describe the GGUF file at `path`.

    Raises: GGUFRefused if it is not a GGUF file, is incomplete, or contradicts itself.
    """
    header = read_header(path, limits)
    header_checks.check(header)
    return describe(header)


def describe(header: Header) -> ModelFacts:
    """The facts of a header that has passed `header_checks.check`."""
    fields = HeaderMetadata(header)
    n_layers = fields.required(".block_count", 1, MAX_LAYERS)
    n_embd = fields.required(".embedding_length", 1, MAX_WIDTH)
    n_head = fields.per_layer(".attention.head_count", n_layers, 0, MAX_WIDTH) or (0,) * n_layers
    n_head_kv = fields.per_layer(".attention.head_count_kv", n_layers, 0, MAX_WIDTH) or n_head
    n_ff = fields.per_layer(".feed_forward_length", n_layers, 0, MAX_WIDTH * 64) or ()
    n_used = fields.per_layer(".expert_used_count", n_layers, 0, MAX_EXPERTS) or (0,)
    head_dim = n_embd // max(n_head) if max(n_head) else None
    template = fields.text("tokenizer.chat_template")
    named = {tensor.name: tensor for tensor in header.tensors}
    table, output = named.get("token_embd.weight"), named.get("output.weight")
    experts = [tensor for tensor in header.tensors if "_exps." in tensor.name]
    bytes_by_type: Counter[str] = Counter()
    for tensor in header.tensors:
        bytes_by_type[tensor.type.name] += tensor.n_bytes
    return ModelFacts(
        architecture=fields.architecture,
        name=_printable(fields.text("general.name")),
        n_layers=n_layers,
        n_embd=n_embd,
        n_head=n_head,
        n_head_kv=n_head_kv,
        key_length=fields.count(".attention.key_length", 1, MAX_WIDTH) or head_dim,
        value_length=fields.count(".attention.value_length", 1, MAX_WIDTH) or head_dim,
        n_ff=n_ff,
        n_ctx_train=fields.required(".context_length", 1, MAX_CONTEXT),
        n_vocab=_n_vocab(fields),
        n_expert=fields.count(".expert_count", 0, MAX_EXPERTS) or 0,
        n_expert_used=max(n_used),
        sliding_window=fields.count(".attention.sliding_window", 0, 0xFFFFFFFF) or None,
        rope=_rope(fields),
        quant=_quant(fields),
        n_params=sum(tensor.n_elements for tensor in header.tensors),
        weights_bytes=sum(bytes_by_type.values()),
        bytes_by_type=dict(bytes_by_type),
        embedding_type=table.type.name if table else None,
        embedding_bytes=table.n_bytes if table else 0,
        output_type=output.type.name if output else None,
        output_bytes=output.n_bytes if output else 0,
        expert_params=sum(tensor.n_elements for tensor in experts),
        expert_bytes=sum(tensor.n_bytes for tensor in experts),
        state_width=_state_width(fields, n_embd) * sum(not n for n in n_head_kv),
        file_bytes=header.file_bytes,
        tokenizer=fields.text("tokenizer.ggml.model"),
        pre_tokenizer=fields.text("tokenizer.ggml.pre"),
        bos_id=_token(fields, "bos"),
        eos_id=_token(fields, "eos"),
        pooling=_pooling(fields),
        has_chat_template=template is not None,
        template_sha256=hashlib.sha256(template.encode()).hexdigest() if template else None,
    )


def _n_vocab(fields: HeaderMetadata) -> int | None:
    tokens = fields.array(TOKENS_KEY, ("string",))
    return tokens.n_items if tokens else fields.count(".vocab_size", 0, 1 << 24)


def _state_width(fields: HeaderMetadata, n_embd: int) -> int:
    """Numbers of recurrent state in one layer: a short convolution's (LFM2), or a state-space model's
    convolution and state (Mamba, Granite hybrids). 0 for other kinds."""
    short = fields.count(".shortconv.l_cache", 1, MAX_WIDTH)
    if short is not None:
        return n_embd * (short - 1)
    kernel = fields.count(".ssm.conv_kernel", 0, MAX_WIDTH) or 0
    inner = fields.count(".ssm.inner_size", 0, MAX_WIDTH * 64) or 0
    size = fields.count(".ssm.state_size", 0, MAX_WIDTH) or 0
    groups = fields.count(".ssm.group_count", 0, MAX_WIDTH) or 0
    return max(0, kernel - 1) * (inner + 2 * groups * size) + inner * size


def _rope(fields: HeaderMetadata) -> dict[str, Scalar]:
    values = {name: fields.metadata.get(fields.key(f".rope.{name}")) for name in _ROPE}
    return {name: value for name, value in values.items() if isinstance(value, Scalar)}


def _quant(fields: HeaderMetadata) -> str | None:
    number = fields.count("general.file_type", 0, 65535)
    # Bit 10 marks a guessed file type.
    return None if number is None else FILE_TYPES.get(number & ~1024)


def _token(fields: HeaderMetadata, name: str) -> int | None:
    token = fields.count(f"tokenizer.ggml.{name}_token_id", 0, NO_TOKEN)
    return None if token == NO_TOKEN else token


def _pooling(fields: HeaderMetadata) -> str | None:
    number = fields.count(".pooling_type", 0, 0xFFFFFFFF)
    return None if number is None else POOLING_TYPES.get(number)


def _printable(text: str | None) -> str | None:
    """A name without control characters, since it is shown in terminals and logs."""
    return None if text is None else "".join(c for c in text if c.isprintable())[:200]
