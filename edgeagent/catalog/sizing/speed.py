"""Predicts how fast a model answers on a device, from two rates of the machine.

Decoding reads every active weight once per step, so memory bandwidth limits the steps per second; prefill
multiplies each token with every parameter of the layers, so matrix throughput limits that. Attention,
which grows with the depth, and a fixed cost of each layer's small operations come on top; the latter makes
tiny models slower than their size suggests.

The shares below were fitted on seven models of 53 to 303 MB with one thread of an AVX-512 server, November
2026, with bandwidth and matrix products measured beside each; `scripts/benchmarks/speed.py` repeats it.
Other processors reach other shares, but nearly the same ones with every model: the ratio of measured to
predicted speed of one model is a factor for all others (`paced`). Where products of each tensor type were
measured on the device (`device/tensor_rates.py`), these rates replace the shares of weights.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from edgeagent.catalog.sizing.memory import kv_bytes_per_cell
from edgeagent.catalog.sizing.model_shape import ModelShape
from edgeagent.catalog.sizing.quantization import BYTES_PER_WEIGHT
from edgeagent.types.measurement import TensorRate

# The share of plain read bandwidth that decoding reaches on weights: 0.77 to 0.86.
WEIGHTS_SHARE = 0.82
# Norms, rotations, copies: 20 to 30 small operations a layer, 70 to 110 us together.
LAYER_S = 90e-6
# The share of a float32 matrix product (BLAS) that products of many tokens reach by weight type: measured
# 1.5 to 1.8 for Q4_0 and 1.5 for Q4_K (both repacked), 1.1 for F16 and Q8_0, 0.4 for Q4_1.
PREFILL_SHARE = {
    "Q4_0": 1.6, "Q4_K": 1.4, "IQ4_NL": 1.4, "Q8_0": 1.1, "F16": 1.1, "BF16": 1.0, "F32": 1.0,
}  # fmt: skip
PREFILL_SHARE_OTHER = 0.4
# The same for one token, where kernels cannot reuse a weight, and for a few.
DECODE_SHARE = 0.6
BATCH_SHARE_OF_PREFILL = 0.5
# Attention over the cells: 0.10 to 0.20 for one token in f16, less where it must be unpacked first.
ATTENTION_SHARE = {"f16": 0.13, "q8_0": 0.10, "q4_0": 0.08}
ATTENTION_SHARE_PREFILL = {"f16": 0.3, "q8_0": 0.1, "q4_0": 0.08}
# A smaller model is dominated by fixed costs and fits into the caches: its ratio does not apply to others.
PACE_WEIGHTS_BYTES = 32_000_000


@dataclass(frozen=True, slots=True)
class Rates:
    """The rates of a machine, with the threads that the engine will use.

    `gflops`: 10^9 float32 operations per second of a matrix product. `batch_curve`: measured T(k)/T(1),
    the time of a step with k sequences over one with a single sequence; empty if not measured. The paces
    are measured rates over predicted ones, see `paced`; 1 if no model was measured. `tensors`: what products
    of each tensor type were measured to run at; it replaces the shares below.
    """

    bandwidth_bytes_per_s: float
    gflops: float
    batch_curve: Mapping[int, float] = field(default_factory=dict)
    decode_pace: float = 1.0
    prefill_pace: float = 1.0
    tensors: Mapping[str, TensorRate] = field(default_factory=dict)


def paced(
    rates: Rates,
    model: ModelShape,
    *,
    decode: float,
    depth: int,
    prefill: float | None = None,
    n_prompt: int = 512,
) -> Rates:
    """`rates` with the paces that make them predict what was measured for `model`.

    `decode` and `prefill` are tokens per second in f16, after `depth` tokens and of a prompt of
    `n_prompt`. No effect for a model of less than `PACE_WEIGHTS_BYTES`.
    """
    if model.weights_bytes < PACE_WEIGHTS_BYTES:
        return rates
    plain = replace(rates, decode_pace=1.0, prefill_pace=1.0)
    pace = decode / decode_tokens_per_s(model, plain, depth=depth)
    prefill_pace = 1.0
    if prefill is not None:
        prefill_pace = prefill / prefill_tokens_per_s(model, plain, n_prompt=n_prompt)
    return replace(rates, decode_pace=pace, prefill_pace=prefill_pace)


def decode_step_s(
    model: ModelShape, rates: Rates, *, kv_type: str = "f16", depth: int = 512, n_seq: int = 1
) -> float:
    """Seconds for one step of `n_seq` sequences that have `depth` tokens each."""
    products = _products_s(model, rates)
    attention = _attention_s(model, rates, kv_type, depth)
    one = products + model.n_layers * LAYER_S + attention
    if n_seq == 1:
        return one / rates.decode_pace
    if n_seq in rates.batch_curve:
        return one * rates.batch_curve[n_seq] / rates.decode_pace
    flops = 2.0 * model.active_params
    share = _product_share(model, rates) * BATCH_SHARE_OF_PREFILL
    together = n_seq * flops / (rates.gflops * 1e9 * share)
    step = max(products, together) + model.n_layers * LAYER_S + n_seq * attention
    return max(one, min(step, n_seq * one)) / rates.decode_pace


def decode_tokens_per_s(
    model: ModelShape, rates: Rates, *, kv_type: str = "f16", depth: int = 512, n_seq: int = 1
) -> float:
    """Tokens per second of all `n_seq` sequences together."""
    step_s = decode_step_s(model, rates, kv_type=kv_type, depth=depth, n_seq=n_seq)
    return n_seq / step_s


def prefill_tokens_per_s(
    model: ModelShape, rates: Rates, *, kv_type: str = "f16", n_prompt: int = 512
) -> float:
    """Prompt tokens per second over a prompt of `n_prompt` in full steps.

    Ignores the output matrix, which runs once per prompt.
    """
    gflops = rates.gflops * 1e9
    layers = max(1, model.active_params - model.n_vocab * model.n_embd)
    products = 2.0 * layers / (gflops * _product_share(model, rates))
    flops = 2.0 * model.attention_width * n_prompt / 2
    attention = flops / (gflops * ATTENTION_SHARE_PREFILL[kv_type])
    return rates.prefill_pace / (products + attention)


def error_of(predicted: float, measured: float) -> float:
    """Relative error of a prediction: 0.1 means that it was 10% above the measurement.

    Raises: ValueError if nothing was measured.
    """
    if measured <= 0:
        raise ValueError(f"measured is {measured}, but must be above 0: measure first")
    return predicted / measured - 1.0


def _attention_s(model: ModelShape, rates: Rates, kv_type: str, depth: int) -> float:
    """Seconds of attention for one token: each query head visits all cells, even if several share their
    keys, so the time goes mostly into computing, not reading."""
    flops = 2.0 * model.attention_width * depth
    computing = flops / (rates.gflops * 1e9 * ATTENTION_SHARE[kv_type])
    reading = depth * kv_bytes_per_cell(model, kv_type) / rates.bandwidth_bytes_per_s
    return max(computing, reading)


def _products_s(model: ModelShape, rates: Rates) -> float:
    """Seconds to multiply every active weight with one token."""
    if not rates.tensors:
        reading = model.active_bytes / (rates.bandwidth_bytes_per_s * WEIGHTS_SHARE)
        return max(reading, 2.0 * model.active_params / (rates.gflops * 1e9 * DECODE_SHARE))
    output = min(model.active_params, model.n_vocab * model.n_embd)
    weights = model.layer_params_by_type or {model.embedding_type: 1.0}
    scale = (model.active_params - output) / sum(weights.values())
    seconds = sum(n * scale * _weight_s(kind, rates) for kind, n in weights.items())
    return seconds + output * _weight_s(model.output_type or model.embedding_type, rates)


def _weight_s(kind: str, rates: Rates) -> float:
    """Seconds to multiply one weight of a type with one token."""
    if kind in rates.tensors:
        return 1 / rates.tensors[kind].decode
    reading = BYTES_PER_WEIGHT[kind] / (rates.bandwidth_bytes_per_s * WEIGHTS_SHARE)
    return max(reading, 2.0 / (rates.gflops * 1e9 * DECODE_SHARE))


def _product_share(model: ModelShape, rates: Rates) -> float:
    """The mean over the weights' types, which is harmonic since times add up."""
    weights = model.layer_params_by_type or {model.embedding_type: 1.0}
    total = sum(weights.values())
    return total / sum(n / _prefill_share(kind, rates) for kind, n in weights.items())


def _prefill_share(kind: str, rates: Rates) -> float:
    """The share of a float32 matrix product that products of many tokens reach: measured, or as usual."""
    if kind in rates.tensors:
        return 2.0 * rates.tensors[kind].prefill / (rates.gflops * 1e9)
    return PREFILL_SHARE.get(kind, PREFILL_SHARE_OTHER)
