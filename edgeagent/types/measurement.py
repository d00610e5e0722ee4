"""How fast a model runs on a device."""

from __future__ import annotations

import msgspec


class PrefillDecode(msgspec.Struct, frozen=True, array_like=True):
    """Prompt tokens per second, and generated tokens per second, under one choice."""

    prefill_tok_s: float
    decode_tok_s: float


class TensorRate(msgspec.Struct, frozen=True, array_like=True):
    """How fast matrices of one tensor type are multiplied: weights a second with one token, and products of
    a weight and a token a second in a chunk of a prompt. `is_repacked`: the processor has kernels of its own.
    `few`: products a second with four tokens, as in steps of some answers, or with drafts; 0: not measured.
    """

    decode: float
    prefill: float
    is_repacked: bool = False
    few: float = 0.0


MEASURED_STEPS = 16


MEASURED_DEPTH = 256


class ModelMeasurement(msgspec.Struct, frozen=True, kw_only=True):
    """How fast one model ran on this device. Rates in tokens per second.

    `decode_tok_s` by thread count over the first `MEASURED_STEPS`, `n_threads` the best of them;
    `batch_curve` has T(k)/T(1) of a step with k sequences; `prefill_tok_s` by chunk size; `options` by the
    name of a choice ("kv q8_0"): a prompt of `MEASURED_DEPTH` tokens and decoding after it.
    """

    model: str
    weights_bytes: int
    n_params: int
    n_threads: int
    decode_tok_s: dict[int, float]
    batch_curve: dict[int, float]
    prefill_tok_s: dict[int, float]
    options: dict[str, PrefillDecode]
