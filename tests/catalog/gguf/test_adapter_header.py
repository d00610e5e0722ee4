"""Which LoRA adapters are refused, and why."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from edgeagent.catalog.gguf.adapter_header import check_adapter
from edgeagent.catalog.gguf.ggml_types import GGML_TYPES
from edgeagent.catalog.gguf.header import Header, TensorInfo
from edgeagent.errors import GGUFRefused

TYPES = {kind.name: kind for kind in GGML_TYPES.values()}
Q = "blk.0.attn_q.weight"


def header(
    metadata: dict[str, Any], kinds: dict[str, str], shapes: dict[str, tuple[int, ...]]
) -> Header:
    tensors = tuple(TensorInfo(name, shape, TYPES["F32"], 0) for name, shape in shapes.items())
    return Header(Path("x.gguf"), 3, metadata, tensors, 32, 0, 0, 0, kinds)


BASE = header(
    {"general.architecture": "llama"},
    {"general.architecture": "string"},
    {
        Q: (64, 32),
        "token_embd.weight": (64, 512),
        "blk.0.attn_norm.weight": (64,),
        "experts": (8, 8, 4),
    },
)
KEYS = {
    "general.type": "adapter",
    "adapter.type": "lora",
    "general.architecture": "llama",
    "adapter.lora.alpha": 8.0,
}
KINDS = dict.fromkeys(KEYS, "string") | {"adapter.lora.alpha": "f32"}
SHAPES: dict[str, tuple[int, ...]] = {f"{Q}.lora_a": (64, 4), f"{Q}.lora_b": (4, 32)}


def test_the_facts_of_a_good_adapter() -> None:
    facts = check_adapter(header(KEYS, KINDS, SHAPES), BASE)
    assert (facts.rank, facts.alpha, facts.n_tensors, facts.architecture) == (4, 8.0, 1, "llama")
    assert facts.n_bytes == 4 * (64 * 4 + 4 * 32)


@pytest.mark.parametrize(
    ("change", "part"),
    [
        ({"general.type": "model"}, "is no LoRA adapter"),
        ({"adapter.type": "other"}, "is no LoRA adapter"),
        ({"general.architecture": "qwen2"}, "'qwen2', the base is 'llama'"),
        ({"adapter.lora.alpha": float("nan")}, "a finite number"),
        ({"adapter.lora.alpha": 1e30}, "at most 1024 times the rank"),
        ({"adapter.lora.alpha": -5000.0}, "at most 1024 times the rank"),
        ({"adapter.lora.alpha": float("inf")}, "a finite number"),
        ({"adapter.lora.alpha": None}, "a finite number"),
    ],
)
def test_keys_that_do_not_suit_the_base_are_refused(change: dict[str, Any], part: str) -> None:
    given = {key: value for key, value in (KEYS | change).items() if value is not None}
    with pytest.raises(GGUFRefused, match=part):
        check_adapter(header(given, KINDS, SHAPES), BASE)


@pytest.mark.parametrize(
    ("key", "kind", "part"),
    [
        # llama.cpp ends the process for these.
        ("adapter.lora.alpha", "f64", "as f64, f32 is expected"),
        ("general.type", "array", "as array, string is expected"),
        ("general.architecture", "u32", "as u32, string is expected"),
        ("adapter.alora.invocation_tokens", "array", "activated LoRA"),
    ],
)
def test_keys_of_another_type_are_refused(key: str, kind: str, part: str) -> None:
    with pytest.raises(GGUFRefused, match=part):
        check_adapter(header(KEYS, KINDS | {key: kind}, SHAPES), BASE)


@pytest.mark.parametrize(
    ("shapes", "part"),
    [
        ({}, "has no tensors"),
        ({f"{Q}.lora_a": (64, 4)}, "one half only"),
        ({f"{Q}.lora_c": (64, 4)}, "only pairs"),
        ({"lora_a": (64, 4)}, "only pairs"),
        (SHAPES | {"blk.0.attn_norm.weight": (64,)}, "only pairs"),
        ({f"{Q}.lora_a": (64, 4), f"{Q}.lora_b": (4, 33)}, "the shapes"),
        ({f"{Q}.lora_a": (64, 4), f"{Q}.lora_b": (5, 32)}, "the shapes"),
        ({f"{Q}.lora_a": (4, 64), f"{Q}.lora_b": (4, 32)}, "the shapes"),
        ({f"{Q}.lora_a": (64, 4, 2), f"{Q}.lora_b": (4, 32)}, "the shapes"),
        ({f"{Q}.lora_a": (64, 2048), f"{Q}.lora_b": (2048, 32)}, "the rank 2048"),
        ({"blk.9.x.lora_a": (64, 4), "blk.9.x.lora_b": (4, 32)}, "does not have"),
        (
            {"token_embd.weight.lora_a": (64, 4), "token_embd.weight.lora_b": (4, 512)},
            "not supported",
        ),
        ({"experts.lora_a": (8, 4), "experts.lora_b": (4, 8)}, "not supported"),
    ],
)
def test_tensors_that_do_not_suit_the_base_are_refused(
    shapes: dict[str, tuple[int, ...]], part: str
) -> None:
    with pytest.raises(GGUFRefused, match=part):
        check_adapter(header(KEYS, KINDS, shapes), BASE)


def test_types_without_kernels_are_refused() -> None:
    good = header(KEYS, KINDS, SHAPES)
    tensors = tuple(replace(tensor, type=TYPES["I32"]) for tensor in good.tensors)
    with pytest.raises(GGUFRefused, match="as I32"):
        check_adapter(replace(good, tensors=tensors), BASE)
