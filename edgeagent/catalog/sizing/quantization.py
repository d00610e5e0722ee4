"""What the name of a quantization means in bytes, before there is a file to read.

"Q4_K_M" is a mixture: most matrices have one type, the sensitive ones (a part of ffn_down and attn_v, the
output) a finer one. The shares below are of the layers' weights, for feed-forward widths of 2.7 to 5.5
times the embedding; the result is within 5% of the files whose size the catalog knows
(tests/catalog/sizing/test_model_shape.py).

Source: llama.cpp's rules for choosing a tensor's type (llama-quant.cpp).
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from edgeagent.catalog.gguf.ggml_types import GGML_TYPES

BYTES_PER_WEIGHT: Mapping[str, float] = MappingProxyType(
    {kind.name: kind.n_bytes / kind.block for kind in GGML_TYPES.values()}
)

# ffn_down and attn_v are 0.32 of a layer's weights; the _M mixtures use a finer type in half of the layers.
_MIXTURES: dict[str, dict[str, float]] = {
    "Q2_K": {"Q2_K": 0.62, "Q3_K": 0.34, "Q4_K": 0.04},
    "Q2_K_S": {"Q2_K": 0.96, "Q4_K": 0.04},
    "Q3_K_S": {"Q3_K": 1.0},
    "Q3_K_M": {"Q3_K": 0.60, "Q4_K": 0.36, "Q5_K": 0.04},
    "Q3_K_L": {"Q3_K": 0.60, "Q5_K": 0.40},
    "Q4_K_S": {"Q4_K": 0.96, "Q5_K": 0.04},
    "Q4_K_M": {"Q4_K": 0.84, "Q6_K": 0.16},
    "Q5_K_S": {"Q5_K": 1.0},
    "Q5_K_M": {"Q5_K": 0.84, "Q6_K": 0.16},
    "MXFP4_MOE": {"MXFP4": 0.92, "Q8_0": 0.08},
}
# Rows that are not a multiple of 256 weights cannot use super-blocks and get a fallback type.
_FALLBACK = {
    "Q2_K": "IQ4_NL", "Q3_K": "IQ4_NL", "Q4_K": "Q5_0", "Q5_K": "Q5_1", "Q6_K": "Q8_0",
    "IQ4_XS": "IQ4_NL",
}  # fmt: skip
_FLOATS = ("F32", "F16", "BF16", "Q8_0")

# The remaining share of a model's capability, by bits per weight of its layers: from the perplexities that
# llama.cpp publishes for 7B models (+0.1% Q8_0, +0.4% Q6_K, +1% Q5_K_M, +2% Q4_K_M, +6% Q3_K_M,
# +15% Q2_K), smaller models losing more. An order, not a score.
_QUALITY = (
    (8.0, 1.0),
    (6.5, 0.99),
    (5.4, 0.97),
    (4.8, 0.95),
    (4.4, 0.92),
    (3.8, 0.85),
    (3.2, 0.75),
)
_LEAST_QUALITY = 0.6


def mixture(quant: str, n_embd: int) -> dict[str, float] | None:
    """Tensor type -> share of the layers' weights, summing to 1; None for an unknown name.

    Names like "IQ3_M" are treated as a single type of their own width.
    """
    name = quant.upper()
    shares = _MIXTURES.get(name)
    if shares is None:
        stem = name.rsplit("_", 1)[0]
        names = (name, f"{name}_K", stem, f"{stem}_S")
        plain = next((kind for kind in names if kind in BYTES_PER_WEIGHT), None)
        shares = {plain: 1.0} if plain else None
    if shares is None or n_embd % 256 == 0:
        return shares
    found: dict[str, float] = {}
    for kind, share in shares.items():
        usable = _FALLBACK.get(kind, kind)
        found[usable] = found.get(usable, 0.0) + share
    return found


def output_type(quant: str, n_embd: int) -> str:
    """The type of the output matrix, or of the token table if that is the output."""
    if quant.upper() in _FLOATS:
        return quant.upper()
    return "Q6_K" if n_embd % 256 == 0 else "Q8_0"


def bytes_per_weight(shares: Mapping[str, float]) -> float:
    """Mean over a mixture, including scales."""
    return sum(share * BYTES_PER_WEIGHT[kind] for kind, share in shares.items())


def quality(bits_per_weight: float) -> float:
    """0.6 to 1: the share of the unquantized model's capability that is left."""
    return next((left for bits, left in _QUALITY if bits_per_weight >= bits), _LEAST_QUALITY)
