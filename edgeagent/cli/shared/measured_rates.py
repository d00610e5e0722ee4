"""The measured rates of this machine, and the error of predictions."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from edgeagent.catalog.gguf.inspection import inspect_apart
from edgeagent.catalog.sizing.model_shape import ModelShape, from_facts
from edgeagent.catalog.sizing.speed import Rates, decode_tokens_per_s, paced, prefill_tokens_per_s
from edgeagent.cli.shared.configured_library import catalog_of, library_of
from edgeagent.device.configuration import Configuration
from edgeagent.device.measurement import Measurement
from edgeagent.device.tensor_rates import TensorRates
from edgeagent.errors import EdgeAgentError
from edgeagent.types.measurement import MEASURED_DEPTH, MEASURED_STEPS, ModelMeasurement

KV_OPTIONS = {"f16": "kv f16", "q8_0": "kv q8_0"}


class Prediction(NamedTuple):
    """Rates in tokens per second: `foretold` from the machine alone, `with_pace` corrected by the
    measured model.

    `sets_pace`: the correction comes from this very rate, so its `with_pace` is not a test.
    """

    name: str
    foretold: float
    with_pace: float
    measured: float
    sets_pace: bool


def model_to_measure(found: Configuration) -> Path | None:
    """The default model if it is installed, else the smallest GGUF that generates text.

    Not an assistant model: it fits into the processor's caches and is not typical of other models.
    """
    try:
        models = library_of(found.settings).installed()
        entries = catalog_of(found.settings).entries
    except EdgeAgentError:
        return None
    others = {
        entry.id
        for entry in entries.values()
        if entry.task in ("embedding", "rerank") or entry.tools is not None
    }
    models = [model for model in models if model.path.suffix == ".gguf" and model.id not in others]
    models.sort(key=lambda model: (model.id != found.settings.models.default, model.size_bytes))
    return models[0].path if models else None


def rates_measured(
    found: Configuration, figures: Measurement, tensors: TensorRates | None = None
) -> Rates | None:
    """The rates of this machine with the threads of its profile, corrected by the measured model if that is
    installed. None if memory or matrix products were not measured."""
    rates = _rates_of_machine(found, figures, tensors)
    model = _model_measured(found, figures)
    if rates is None or model is None or figures.model is None:
        return rates
    return _paced(found, rates, model, figures.model)


def predictions(
    found: Configuration, figures: Measurement, tensors: TensorRates | None = None
) -> list[Prediction]:
    """Each rate of the measured model as selection would predict it; empty if no model was measured or it is
    no longer installed."""
    plain = _rates_of_machine(found, figures, tensors)
    model, ran = _model_measured(found, figures), figures.model
    if plain is None or model is None or ran is None:
        return []
    rates = _paced(found, plain, model, ran)
    is_paced = rates is not plain

    def decode(name: str, measured: float, depth: int, kv_type: str, sets_pace: bool) -> Prediction:
        foretold, with_pace = (
            decode_tokens_per_s(model, each, depth=depth, kv_type=kv_type)
            for each in (plain, rates)
        )
        return Prediction(name, foretold, with_pace, measured, sets_pace and is_paced)

    def prefill(name: str, measured: float, n: int, kv_type: str, sets_pace: bool) -> Prediction:
        foretold, with_pace = (
            prefill_tokens_per_s(model, each, n_prompt=n, kv_type=kv_type)
            for each in (plain, rates)
        )
        return Prediction(name, foretold, with_pace, measured, sets_pace and is_paced)

    rows = [decode("decode", _decode_of(found, ran), MEASURED_STEPS // 2, "f16", True)]
    if ran.prefill_tok_s:
        n = max(ran.prefill_tok_s)
        rows.append(prefill(f"prefill of {n}", ran.prefill_tok_s[n], n, "f16", True))
    for kv_type, option in KV_OPTIONS.items():
        if (both := ran.options.get(option)) is not None:
            said = f"{MEASURED_DEPTH}, KV {kv_type}"
            rows += [
                decode(f"decode after {said}", both.decode_tok_s, MEASURED_DEPTH, kv_type, False),
                prefill(f"prefill of {said}", both.prefill_tok_s, MEASURED_DEPTH, kv_type, False),
            ]
    return rows


def _paced(found: Configuration, rates: Rates, model: ModelShape, ran: ModelMeasurement) -> Rates:
    n = max(ran.prefill_tok_s, default=0)
    return paced(
        rates,
        model,
        decode=_decode_of(found, ran),
        depth=MEASURED_STEPS // 2,
        prefill=ran.prefill_tok_s.get(n),
        n_prompt=n,
    )


def _decode_of(found: Configuration, ran: ModelMeasurement) -> float:
    """With the threads of the profile, if that was measured."""
    return ran.decode_tok_s.get(n_threads_of(found), max(ran.decode_tok_s.values()))


def n_threads_of(found: Configuration) -> int:
    return int(str(found.profile.settings(found.device)["engine.n_threads"]))


def _rates_of_machine(
    found: Configuration, figures: Measurement, tensors: TensorRates | None
) -> Rates | None:
    memory = {rate.n_threads: rate.value for rate in figures.memory_gb_per_s}
    gflops = {rate.n_threads: rate.value for rate in figures.gemm_gflop_per_s}
    best = figures.best_memory_gb_per_s, figures.best_gemm_gflop_per_s
    if not best[0] or not best[1]:
        return None
    n = n_threads_of(found)
    curve = figures.model.batch_curve if figures.model is not None else {}
    return Rates(
        memory.get(n, best[0]) * 1e9,
        gflops.get(n, best[1]),
        batch_curve=curve,
        tensors=tensors.rates if tensors is not None else {},
    )


def _model_measured(found: Configuration, figures: Measurement) -> ModelShape | None:
    if figures.model is None:
        return None
    try:
        for model in library_of(found.settings).installed():
            if model.path.name == figures.model.model:
                return from_facts(inspect_apart(model.path))
    except EdgeAgentError:
        pass  # without a correction by the measured model
    return None
