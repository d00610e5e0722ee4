"""Refuses a LoRA adapter that does not belong to its base model, or that would crash the engine.

An adapter is a GGUF file with a pair of matrices for some tensors of the base: `NAME.lora_a` of shape
(inputs, rank) and `NAME.lora_b` of shape (rank, outputs). llama.cpp asserts the types of the keys that it
reads, and computes with whatever the matrices hold.

Source: llama-adapter.cpp of llama.cpp (July 2026).
"""

from __future__ import annotations

import math
from pathlib import Path

import msgspec

from edgeagent.catalog.gguf.header import Header, HeaderLimits, TensorInfo, read_header
from edgeagent.errors import GGUFRefused

MAX_RANK = 1024
# alpha / rank, which multiplies every change; usual are 0.5 to 16. Far larger ones overflow to infinity.
MAX_SCALE = 1024.0
MAX_TENSORS = 8192
TYPES = ("F32", "F16", "BF16", "Q8_0")
KINDS = {
    "general.type": "string",
    "general.architecture": "string",
    "general.name": "string",
    "adapter.type": "string",
    "adapter.lora.alpha": "f32",
    "general.alignment": "u32",
}
# The embedding has its matrices the other way round, and experts have a third dimension.
UNSUPPORTED = ("token_embd.weight", "per_layer_token_embd.weight")


class AdapterFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What an adapter changes. `n_tensors` counts tensors of the base."""

    architecture: str
    rank: int
    alpha: float
    n_tensors: int
    n_bytes: int


def inspect_adapter(path: Path, base: Path) -> AdapterFacts:
    """The facts of the adapter at `path` for the model at `base`. Raises: GGUFRefused."""
    header = read_header(path, HeaderLimits(max_tensors=MAX_TENSORS))
    return check_adapter(header, read_header(base))


def check_adapter(header: Header, base: Header) -> AdapterFacts:
    """Raises: GGUFRefused where the adapter is not one of the base model."""
    _check_keys(header, base)
    alpha = header.metadata["adapter.lora.alpha"]
    assert isinstance(alpha, float)
    pairs = _pairs(header)
    wanted = {tensor.name: tensor for tensor in base.tensors}
    ranks = [_check_pair(header, name, *pair, wanted.get(name)) for name, pair in pairs.items()]
    if abs(alpha) > MAX_SCALE * min(ranks):
        raise refused(
            header,
            f"has {alpha:g} in 'adapter.lora.alpha' with the rank {min(ranks)}, at most {MAX_SCALE:g} "
            "times the rank is supported",
        )
    return AdapterFacts(
        architecture=str(header.metadata["general.architecture"]),
        rank=max(ranks),
        alpha=alpha,
        n_tensors=len(pairs),
        n_bytes=sum(tensor.n_bytes for tensor in header.tensors),
    )


def _check_keys(header: Header, base: Header) -> None:
    for key, kind in header.kinds.items():
        if key in KINDS and kind != KINDS[key]:
            raise refused(header, f"stores {key!r} as {kind}, {KINDS[key]} is expected")
        if key.startswith("adapter.alora."):
            raise refused(header, "is an activated LoRA, which is not supported")
    found = {key: header.metadata.get(key) for key in KINDS}
    if found["general.type"] != "adapter" or found["adapter.type"] != "lora":
        kinds = f"{found['general.type']!r}, {found['adapter.type']!r}"
        raise refused(header, f"is no LoRA adapter (general.type, adapter.type: {kinds})")
    architecture = base.metadata.get("general.architecture")
    if found["general.architecture"] != architecture:
        raise refused(
            header,
            f"is for models of {found['general.architecture']!r}, the base is {architecture!r}",
        )
    alpha = found["adapter.lora.alpha"]
    if not isinstance(alpha, float) or not math.isfinite(alpha):
        raise refused(header, f"has {alpha!r} in 'adapter.lora.alpha', a finite number is expected")


def _pairs(header: Header) -> dict[str, tuple[TensorInfo, TensorInfo]]:
    halves: dict[str, dict[str, TensorInfo]] = {}
    for tensor in header.tensors:
        name, _, half = tensor.name.rpartition(".")
        if half not in ("lora_a", "lora_b") or not name:
            raise refused(
                header, f"has the tensor {tensor.name!r}, only pairs of lora_a and lora_b"
            )
        if tensor.type.name not in TYPES:
            raise refused(
                header, f"stores {tensor.name!r} as {tensor.type.name}, not as {', '.join(TYPES)}"
            )
        halves.setdefault(name, {})[half] = tensor
    for name, found in halves.items():
        if len(found) != 2:
            raise refused(header, f"has one half only of the pair for {name!r}")
    if not halves:
        raise refused(header, "has no tensors")
    return {name: (found["lora_a"], found["lora_b"]) for name, found in halves.items()}


def _check_pair(
    header: Header, name: str, a: TensorInfo, b: TensorInfo, of: TensorInfo | None
) -> int:
    """The rank of a pair."""
    if of is None:
        raise refused(header, f"changes {name!r}, which the base model does not have")
    if name in UNSUPPORTED or len(of.shape) != 2:
        raise refused(header, f"changes {name!r}, which is not supported")
    shapes = (*_two(a.shape), *_two(b.shape))
    n_in, rank, rank_b, n_out = shapes
    if (n_in, n_out) != of.shape or rank != rank_b or len(a.shape) > 2 or len(b.shape) > 2:
        raise refused(
            header,
            f"has the shapes {a.shape} and {b.shape} for {name!r}, which is {of.shape} in the base model",
        )
    if rank > MAX_RANK:
        raise refused(header, f"has the rank {rank} for {name!r}, at most {MAX_RANK} is supported")
    return rank


def _two(shape: tuple[int, ...]) -> tuple[int, int]:
    return (shape[0], shape[1] if len(shape) > 1 else 1)


def refused(header: Header, what: str) -> GGUFRefused:
    return GGUFRefused(
        f"{header.path.name!r} {what}: take an adapter made for this base model, converted by llama.cpp's "
        "convert_lora_to_gguf.py."
    )
