"""Which models that embed or rank are computed with 8-bit integers on this device, by CTranslate2 (pure).

A chunk of text takes a quarter of the processor time then (all-MiniLM-L6-v2, zen4, 2026-11-30; see
scripts/benchmarks/RESULTS.md). Only processors with instructions for sums of 8-bit products gain for certain.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from importlib.util import find_spec
from typing import Literal

from edgeagent.catalog.gguf.model_facts import ModelFacts
from edgeagent.types.engine_config import Int8Kernels

# The names that a probe gives: x86-64, then ARM.
_DOT_PRODUCTS = frozenset({"avx512_vnni", "avx_vnni", "dotprod"})
_AVX512 = frozenset({"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl", "avx512_vnni"})
# Of matrices. What is coarser has lost more than 8 bits would, and is fast for its size in llama.cpp.
_TYPES = frozenset({"F32", "F16", "BF16", "Q8_0"})
_POOLINGS = frozenset({"mean", "cls", "rank"})


@cache
def has_ctranslate2() -> bool:
    """Whether it is installed, when this is asked first. It is not imported."""
    return find_spec("ctranslate2") is not None


def int8_kernels(
    wanted: Literal["auto", "on", "off"],
    facts: ModelFacts,
    features: Iterable[str],
    *,
    is_installed: bool,
) -> Int8Kernels | None:
    """The kernels for a model of texts; None: llama.cpp computes it."""
    have = frozenset(features)
    is_able = (
        is_installed
        and facts.architecture == "bert"
        and facts.pooling in _POOLINGS
        and facts.bytes_by_type.keys() <= _TYPES
    )
    if wanted == "off" or not is_able or (wanted == "auto" and not have & _DOT_PRODUCTS):
        return None
    return "avx512" if have >= _AVX512 else "default"
