"""The shape of a model: the numbers that determine memory and speed, read from its file or estimated.

`from_facts` uses a file's own tensors. `from_entry` uses what the catalog knows before a download and sets
`is_estimated`: sizes by type from the quantization's usual mixture, the feed-forward width from the
parameters that the other matrices leave.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from edgeagent.catalog.catalog_file import Entry, Shape, Variant
from edgeagent.catalog.gguf.model_facts import ModelFacts
from edgeagent.catalog.sizing.quantization import (
    BYTES_PER_WEIGHT,
    bytes_per_weight,
    mixture,
    output_type,
)

# If the catalog does not say: a large but ordinary vocabulary.
_N_VOCAB_UNKNOWN = 152_000
# Hybrids like LFM2 keep the last inputs of a short convolution (kernel size 3) per layer.
_SHORT_CONVOLUTION = 2
# Architectures without a KV cache in llama.cpp. For one that is missing here, the estimate is too large.
_ENCODERS = frozenset(
    ("bert", "nomic-bert", "nomic-bert-moe", "jina-bert-v2", "jina-bert-v3", "modern-bert", "neo-bert",
     "gemma-embedding")
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class ModelShape:
    """Counts are numbers of values, sizes are bytes.

    `kv_width`: key and value numbers of one cell, all layers together. `head_dim`: the width of one head's
    keys, which must be a multiple of the block of a quantized KV type. `attention_width`: as `kv_width`,
    but for each query head. `n_caches`: 2 if some layers use a sliding window and have a cache of their
    own, else 1. `state_width`: float32 numbers of recurrent state, per sequence. `embedding_bytes` is part
    of `bytes_by_type`; `output_type` None: the token table is also the output matrix. `expert_bytes` and
    `expert_params` are of all experts, of which a token uses `expert_share`. `has_cache` is False for
    encoders, which keep nothing between steps.
    """

    n_layers: int
    n_embd: int
    n_ff: int
    n_head: int
    head_dim: int
    kv_width: int
    attention_width: int
    n_caches: int
    state_width: int
    n_vocab: int
    n_ctx_train: int
    n_params: int
    bytes_by_type: Mapping[str, int]
    embedding_type: str
    embedding_bytes: int
    output_type: str | None = None
    output_bytes: int = 0
    expert_bytes: int = 0
    expert_params: int = 0
    expert_share: float = 1.0
    has_template: bool = True
    has_cache: bool = True
    is_estimated: bool = False

    @property
    def weights_bytes(self) -> int:
        """All tensors, as stored in the file."""
        return sum(self.bytes_by_type.values())

    @property
    def is_tied(self) -> bool:
        """Whether the token table is also the output matrix."""
        return self.output_type is None

    @property
    def layer_params_by_type(self) -> dict[str, float]:
        """Parameters of the layers' matrices by tensor type, without token table, output, and F32 norms
        (unless all is F32)."""
        left = dict(self.bytes_by_type)
        left[self.embedding_type] = left.get(self.embedding_type, 0) - self.embedding_bytes
        if self.output_type is not None:
            left[self.output_type] = left.get(self.output_type, 0) - self.output_bytes
        if any(size > 0 for kind, size in left.items() if kind != "F32"):
            left.pop("F32", None)
        return {kind: size / BYTES_PER_WEIGHT[kind] for kind, size in left.items() if size > 0}

    @property
    def active_bytes(self) -> int:
        """Weights read for one token: the token table only if it is the output, and only the chosen
        experts."""
        table = 0 if self.is_tied else self.embedding_bytes
        return self.weights_bytes - table - int(self.expert_bytes * (1 - self.expert_share))

    @property
    def active_params(self) -> int:
        """Parameters multiplied with each token, as in `active_bytes`."""
        per_weight = BYTES_PER_WEIGHT[self.embedding_type]
        table = 0 if self.is_tied else int(self.embedding_bytes / per_weight)
        return self.n_params - table - int(self.expert_params * (1 - self.expert_share))


def from_facts(facts: ModelFacts) -> ModelShape:
    """The shape of a model file, exact except for what its header does not say."""
    head_dim = facts.key_length or 0
    width = head_dim + (facts.value_length or 0)
    experts = facts.n_expert_used / facts.n_expert if facts.n_expert else 1.0
    return ModelShape(
        n_layers=facts.n_layers,
        n_embd=facts.n_embd,
        n_ff=max(facts.n_ff, default=4 * facts.n_embd) * max(1, facts.n_expert_used),
        n_head=max(facts.n_head),
        head_dim=head_dim,
        kv_width=width * sum(facts.n_head_kv),
        attention_width=width
        * sum(q for q, kv in zip(facts.n_head, facts.n_head_kv, strict=True) if kv),
        n_caches=2 if facts.sliding_window else 1,
        state_width=facts.state_width,
        n_vocab=facts.n_vocab or 0,
        n_ctx_train=facts.n_ctx_train,
        n_params=facts.n_params,
        bytes_by_type=facts.bytes_by_type,
        embedding_type=facts.embedding_type or "F32",
        embedding_bytes=facts.embedding_bytes,
        output_type=facts.output_type,
        output_bytes=facts.output_bytes,
        expert_bytes=facts.expert_bytes,
        expert_params=facts.expert_params,
        expert_share=experts,
        has_template=facts.has_chat_template,
        has_cache=facts.architecture not in _ENCODERS,
    )


def from_entry(entry: Entry, variant: Variant) -> ModelShape | None:
    """The expected shape of a variant; None if the catalog has no shape or an unknown quantization.

    Assumes that the token table is also the output matrix, as in most small models; for a model that has
    both, the sum is right within 3%, since the parameters of both are counted.
    """
    shape = entry.shape
    if shape is None:
        return None
    shares = mixture(variant.quant, shape.n_embd)
    if shares is None:
        return None
    n_vocab = shape.n_vocab or _N_VOCAB_UNKNOWN
    table = min(n_vocab * shape.n_embd, entry.n_params)
    table_type = output_type(variant.quant, shape.n_embd)
    table_bytes = int(table * BYTES_PER_WEIGHT[table_type])
    layers = entry.n_params - table
    layers_bytes = layers * bytes_per_weight(shares)
    if variant.size_bytes is not None:
        # A known size corrects the mixture. The header (mostly the vocabulary) is 1-3% of it.
        layers_bytes = max(0.5 * layers_bytes, variant.size_bytes - table_bytes)
    scale = layers_bytes / max(1.0, layers * bytes_per_weight(shares))
    by_type = {
        kind: int(layers * share * BYTES_PER_WEIGHT[kind] * scale) for kind, share in shares.items()
    }
    by_type[table_type] = by_type.get(table_type, 0) + table_bytes
    n_layers_kv = shape.n_layers_kv or shape.n_layers
    return ModelShape(
        n_layers=shape.n_layers,
        n_embd=shape.n_embd,
        n_ff=_feed_forward_width(shape, layers),
        n_head=shape.n_head,
        head_dim=shape.head_dim,
        kv_width=2 * shape.n_head_kv * shape.head_dim * n_layers_kv,
        attention_width=2 * shape.n_head * shape.head_dim * n_layers_kv,
        n_caches=2 if shape.sliding_window else 1,
        state_width=(shape.n_layers - n_layers_kv) * shape.n_embd * _SHORT_CONVOLUTION,
        n_vocab=n_vocab,
        n_ctx_train=shape.n_ctx_train,
        n_params=entry.n_params,
        bytes_by_type=by_type,
        embedding_type=table_type,
        embedding_bytes=table_bytes,
        is_estimated=True,
    )


def _feed_forward_width(shape: Shape, layer_params: int) -> int:
    """The width of gate, up and down that accounts for the parameters outside attention."""
    attention = shape.n_embd * shape.head_dim * 2 * (shape.n_head + shape.n_head_kv)
    left = layer_params / shape.n_layers - attention
    return max(shape.n_embd, int(left / (3 * shape.n_embd)))
