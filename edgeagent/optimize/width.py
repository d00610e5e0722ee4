"""Which attention heads and feed-forward channels of each layer a model can do without: pure decisions.

All layers stay equally wide, which is what llama.cpp loads; which heads and channels go differs by layer. A
channel adds activation x column to the residual stream, a head the sum of that over its columns. So the
importance of one is the mean square of its activations times the squares of its columns in the matrix behind
it (`ffn_down`, `attn_output`), by the same sums of which an importance matrix is made.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from edgeagent.catalog.gguf.header import Header
from edgeagent.errors import InvalidParameter

Array = np.ndarray[Any, Any]
ATTENTION_OUTPUT, FEED_FORWARD_OUTPUT = "attn_output.weight", "ffn_down.weight"
# Blocks of quantized types have 32 weights.
LARGEST_GRAIN = 32
_QUERY_ROWS = ("attn_q.weight", "attn_q.bias")
_KEY_ROWS = ("attn_k.weight", "attn_k.bias", "attn_v.weight", "attn_v.bias")
_CHANNEL_ROWS = ("ffn_gate.weight", "ffn_gate.bias", "ffn_up.weight", "ffn_up.bias")
_WHOLE = (
    "attn_output.bias", "ffn_down.bias", "attn_norm.weight", "ffn_norm.weight", "attn_q_norm.weight",
    "attn_k_norm.weight", "post_attention_norm.weight", "post_ffw_norm.weight",
)  # fmt: skip
_NEEDED = ("attn_q.weight", "attn_k.weight", "attn_v.weight", ATTENTION_OUTPUT, FEED_FORWARD_OUTPUT)


@dataclass(frozen=True)
class LayerShape:
    """The widths that all layers of a model have. `grain`: channels are left out by multiples of this."""

    n_layers: int
    n_embd: int
    n_heads: int
    n_kv_heads: int
    head_dim: int
    n_ff: int
    n_ff_matrices: int

    @property
    def heads_per_group(self) -> int:
        return self.n_heads // self.n_kv_heads

    @property
    def grain(self) -> int:
        return min(LARGEST_GRAIN, self.n_ff & -self.n_ff)

    @property
    def n_params(self) -> int:
        """The parameters of the matrices of all layers."""
        heads = 2 * (self.n_heads + self.n_kv_heads) * self.head_dim
        return self.n_layers * self.n_embd * (heads + self.n_ff_matrices * self.n_ff)


def layer_shape(header: Header) -> LayerShape:
    """The widths of a model. Raises: InvalidParameter where it is not known how to cut its layers."""
    architecture = header.metadata.get("general.architecture")
    shapes = {tensor.name: tensor.shape for tensor in header.tensors}

    def number(key: str, otherwise: int | None = None) -> int:
        value = header.metadata.get(f"{architecture}.{key}", otherwise)
        if not isinstance(value, int) or value < 1:
            raise InvalidParameter(
                f"{header.path.name} has {architecture}.{key} = {value!r}, one number for all layers is "
                "needed: its layers cannot be made narrower."
            )
        return value

    n_layers, n_heads = number("block_count"), number("attention.head_count")
    n_kv_heads, n_ff = number("attention.head_count_kv", n_heads), number("feed_forward_length")
    n_embd = number("embedding_length")
    head_dim = number("attention.key_length", n_embd // n_heads)
    found = LayerShape(
        n_layers, n_embd, n_heads, n_kv_heads, head_dim, n_ff,
        3 if "blk.0.ffn_gate.weight" in shapes else 2,
    )  # fmt: skip
    _check(header, found, shapes)
    return found


def _check(header: Header, shape: LayerShape, shapes: Mapping[str, tuple[int, ...]]) -> None:
    known = {*_QUERY_ROWS, *_KEY_ROWS, *_CHANNEL_ROWS, *_WHOLE, *_NEEDED}
    strange = sorted(
        name for name in shapes
        if name.startswith("blk.") and name.split(".", 2)[2] not in known
    )  # fmt: skip
    missing = [
        f"blk.{i}.{name}" for i in range(shape.n_layers) for name in _NEEDED
        if f"blk.{i}.{name}" not in shapes
    ]  # fmt: skip
    q, kv, ff = shape.n_heads * shape.head_dim, shape.n_kv_heads * shape.head_dim, shape.n_ff
    expected = {
        "attn_q.weight": (shape.n_embd, q), "attn_k.weight": (shape.n_embd, kv),
        "attn_v.weight": (shape.n_embd, kv), ATTENTION_OUTPUT: (q, shape.n_embd),
        FEED_FORWARD_OUTPUT: (ff, shape.n_embd), "attn_q_norm.weight": (shape.head_dim,),
        "attn_k_norm.weight": (shape.head_dim,),
    }  # fmt: skip
    odd = [
        name for name, has in shapes.items()
        if name.startswith("blk.") and has != expected.get(name.split(".", 2)[2], has)
    ]  # fmt: skip
    if strange or missing or odd or shape.n_heads % shape.n_kv_heads:
        which = (strange or missing or odd or ["the numbers of heads"])[0]
        raise InvalidParameter(
            f"{header.path.name} has other layers than attention and feed-forward of one width ({which}): "
            "its layers cannot be made narrower."
        )


@dataclass(frozen=True)
class Width:
    """What stays of each layer: groups of heads that share keys, heads of each of them (by their numbers in
    the source), and channels, all ascending."""

    groups: tuple[tuple[int, ...], ...]
    heads: tuple[tuple[int, ...], ...]
    channels: tuple[tuple[int, ...], ...]

    def shape(self, source: LayerShape) -> LayerShape:
        return replace(
            source, n_heads=len(self.heads[0]), n_kv_heads=len(self.groups[0]),
            n_ff=len(self.channels[0]),
        )  # fmt: skip

    def dropped_columns(self, source: LayerShape) -> dict[str, Array]:
        """The columns behind what is gone, int32, by the names of their matrices."""
        found = {}
        for layer in range(source.n_layers):
            heads = np.setdiff1d(np.arange(source.n_heads), self.heads[layer])
            channels = np.setdiff1d(np.arange(source.n_ff), self.channels[layer])
            if len(heads):
                found[f"blk.{layer}.{ATTENTION_OUTPUT}"] = _rows_of(heads, source.head_dim)
            if len(channels):
                found[f"blk.{layer}.{FEED_FORWARD_OUTPUT}"] = channels.astype(np.int32)
        return found

    def rows(self, name: str, source: LayerShape) -> Array | None:
        """The rows of a tensor that stay; None: all."""
        parts = name.split(".", 2)
        if parts[0] != "blk":
            return None
        layer, kind = int(parts[1]), parts[2]
        if kind in _QUERY_ROWS:
            return _rows_of(np.array(self.heads[layer]), source.head_dim)
        if kind in _KEY_ROWS:
            return _rows_of(np.array(self.groups[layer]), source.head_dim)
        return np.array(self.channels[layer]) if kind in _CHANNEL_ROWS else None

    def columns(self, name: str, source: LayerShape) -> Array | None:
        """The columns of a tensor that stay; None: all."""
        parts = name.split(".", 2)
        if parts[0] != "blk":
            return None
        layer, kind = int(parts[1]), parts[2]
        if kind == ATTENTION_OUTPUT:
            return _rows_of(np.array(self.heads[layer]), source.head_dim)
        return np.array(self.channels[layer]) if kind == FEED_FORWARD_OUTPUT else None


def _rows_of(heads: Array, head_dim: int) -> Array:
    rows: Array = (heads[:, None] * head_dim + np.arange(head_dim)).ravel().astype(np.int32)
    return rows


def whole(shape: LayerShape) -> Width:
    """Everything stays."""
    return Width(
        (tuple(range(shape.n_kv_heads)),) * shape.n_layers,
        (tuple(range(shape.n_heads)),) * shape.n_layers,
        (tuple(range(shape.n_ff)),) * shape.n_layers,
    )


@dataclass(frozen=True, eq=False)
class Scores:
    """The importance of each head, float64 [n_layers, n_heads], and channel [n_layers, n_ff]."""

    heads: Array
    channels: Array


@dataclass(frozen=True)
class Step:
    """One way to go on: what it leaves out in words, and what stays then."""

    what: str
    width: Width


def steps(source: LayerShape, now: Width, scores: Scores, n_params: int) -> list[Step]:
    """The ways to leave out about `n_params` more parameters: channels; a head of each group; a whole group.

    Heads are coarse. They are offered where they take no more than twice of what is wanted.
    """
    shape = now.shape(source)
    per_channel = source.n_layers * source.n_embd * source.n_ff_matrices
    found = []
    n_channels = max(1, round(n_params / per_channel / source.grain)) * source.grain
    if n_channels < shape.n_ff:
        channels = tuple(
            _without(kept, scores.channels[layer], n_channels)
            for layer, kept in enumerate(now.channels)
        )
        found.append(Step(f"{n_channels} channels of each layer", replace(now, channels=channels)))
    head = 2 * source.n_layers * source.n_embd * source.head_dim
    if shape.heads_per_group > 1 and head * shape.n_kv_heads <= 2 * n_params:
        found.append(Step("a head of each group", _without_heads(source, now, scores)))
    if shape.n_kv_heads > 1 and head * (shape.heads_per_group + 1) <= 2 * n_params:
        found.append(Step("a group of heads of each layer", _without_group(source, now, scores)))
    return found


def _without(kept: Sequence[int], scores: Array, n: int) -> tuple[int, ...]:
    """`kept` without the `n` of least score, ascending."""
    ordered = sorted(kept, key=lambda i: (scores[i], i))
    return tuple(sorted(ordered[n:]))


def _without_heads(source: LayerShape, now: Width, scores: Scores) -> Width:
    heads = []
    for layer, kept in enumerate(now.heads):
        least = [
            min(
                (h for h in kept if h // source.heads_per_group == group),
                key=lambda h, layer=layer: (scores.heads[layer][h], h),  # type: ignore[misc]
            )
            for group in now.groups[layer]
        ]
        heads.append(tuple(h for h in kept if h not in least))
    return replace(now, heads=tuple(heads))


def _without_group(source: LayerShape, now: Width, scores: Scores) -> Width:
    groups, heads = [], []
    for layer, kept in enumerate(now.heads):
        sums = dict.fromkeys(now.groups[layer], 0.0)
        for head in kept:
            sums[head // source.heads_per_group] += float(scores.heads[layer][head])
        least = min(sums, key=lambda group, sums=sums: (sums[group], group))  # type: ignore[misc]
        groups.append(tuple(group for group in now.groups[layer] if group != least))
        heads.append(tuple(h for h in kept if h // source.heads_per_group != least))
    return replace(now, groups=tuple(groups), heads=tuple(heads))
