"""Which weights llama.cpp repacks, that is, stores a second time in the layout of the processor's kernels.

A matrix of such a type is copied into anonymous memory when it is loaded. With a mapped file the original
stays resident beside the copy; without mapping it is in memory once. A token table is only used for
lookups and never copied, unless it is also the output matrix: then the output is a copy of its own.

Source: ggml-cpu's choice of repacked layouts in llama.cpp of autumn 2026, and for AVX-512 its load report
on seven models. Other builds (KleidiAI, AMX) may differ.
"""

from __future__ import annotations

from collections.abc import Iterable

NONE: frozenset[str] = frozenset()

_X86 = frozenset({"Q4_0", "Q4_K", "IQ4_NL", "MXFP4"})
_ARM_DOTPROD = frozenset({"Q4_0", "Q4_K", "Q5_K", "Q6_K", "Q8_0", "IQ4_NL", "MXFP4", "Q1_0"})
_ARM_PLAIN = frozenset({"IQ4_NL"})


def repacked_types(architecture: str, features: Iterable[str]) -> frozenset[str]:
    """Names of the tensor types that are repacked on such a processor; empty if none is known.

    `architecture` as the kernel names it ("x86_64", "aarch64"), `features` as a probe does ("avx2",
    "dotprod"). Without features, the common case with copies is assumed: AVX2 on x86-64, none on aarch64
    without dotprod and i8mm.
    """
    have = {feature.lower() for feature in features}
    if architecture == "x86_64":
        if have and "avx2" not in have:
            return NONE
        return _X86 | {"Q2_K"} if any(name.startswith("avx512") for name in have) else _X86
    if architecture == "aarch64":
        return _ARM_DOTPROD if have & {"dotprod", "asimddp", "i8mm"} else _ARM_PLAIN
    return NONE
