"""What a prediction must obey whatever the machine. How well it predicts is for
scripts/benchmarks/speed.py, since a test that measures time fails on a busy machine."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeagent.catalog.catalog_file import load_catalog
from edgeagent.catalog.model_library import shipped_models_dir
from edgeagent.catalog.sizing.model_shape import ModelShape, from_entry
from edgeagent.catalog.sizing.speed import (
    LAYER_S,
    Rates,
    decode_step_s,
    decode_tokens_per_s,
    paced,
    prefill_tokens_per_s,
)
from edgeagent.types.measurement import TensorRate

ENTRIES = load_catalog(shipped_models_dir() / "catalog.toml").entries
MODELS = [
    model for e in ENTRIES.values() for v in e.variants if (model := from_entry(e, v)) is not None
]
rates = st.builds(Rates, st.floats(1e9, 4e11), st.floats(1.0, 4000.0))
models = st.sampled_from(MODELS)


@given(model=models, machine=rates, factor=st.floats(1.1, 10))
def test_measured_types_set_the_speed_of_the_models_that_have_them(
    model: ModelShape, machine: Rates, factor: float
) -> None:
    kinds = {*model.bytes_by_type, model.embedding_type}
    slow = replace(machine, tensors={kind: TensorRate(1e9, 1e10) for kind in kinds})
    fast = replace(
        machine, tensors={kind: TensorRate(1e9 * factor, 1e10 * factor) for kind in kinds}
    )
    other = replace(machine, tensors={"another": TensorRate(1.0, 1.0)})
    step_s = decode_step_s(model, slow, depth=0)
    weights_s = model.active_params / 1e9
    assert step_s == pytest.approx(weights_s + model.n_layers * LAYER_S, rel=0.02)
    saved = weights_s * (1 - 1 / factor)
    assert step_s - decode_step_s(model, fast, depth=0) == pytest.approx(saved, rel=0.02)
    assert prefill_tokens_per_s(model, fast) > prefill_tokens_per_s(model, slow)
    # A type that was not measured is predicted as before.
    assert prefill_tokens_per_s(model, other) == prefill_tokens_per_s(model, machine)


@given(model=models, machine=rates, depth=st.integers(0, 30_000), n_seq=st.integers(1, 32))
def test_a_batch_takes_between_the_time_of_one_and_of_all_one_by_one(
    model: ModelShape, machine: Rates, depth: int, n_seq: int
) -> None:
    one = decode_step_s(model, machine, depth=depth)
    together = decode_step_s(model, machine, depth=depth, n_seq=n_seq)
    assert one <= together <= n_seq * one * (1 + 1e-9)


@given(model=models, machine=rates, depth=st.integers(0, 30_000), factor=st.floats(1, 10))
def test_a_faster_machine_and_a_shorter_past_are_never_slower(
    model: ModelShape, machine: Rates, depth: int, factor: float
) -> None:
    here = decode_tokens_per_s(model, machine, depth=depth)
    faster = replace(machine, bandwidth_bytes_per_s=machine.bandwidth_bytes_per_s * factor)
    assert decode_tokens_per_s(model, faster, depth=depth) >= here
    assert decode_tokens_per_s(model, machine, depth=depth // 2) >= here
    stronger = replace(machine, gflops=machine.gflops * factor)
    assert prefill_tokens_per_s(model, stronger) >= prefill_tokens_per_s(model, machine)


@given(model=models, machine=rates)
def test_no_token_comes_faster_than_its_weights_can_be_read(
    model: ModelShape, machine: Rates
) -> None:
    bound = machine.bandwidth_bytes_per_s / model.active_bytes
    assert decode_tokens_per_s(model, machine, depth=0) < bound


def test_of_experts_only_those_that_are_chosen_are_read() -> None:
    dense = MODELS[0]
    mixed = replace(
        dense, expert_bytes=dense.weights_bytes // 2, expert_params=dense.n_params // 2,
        expert_share=0.25,
    )  # fmt: skip
    assert mixed.active_bytes == pytest.approx(dense.active_bytes * (1 - 0.5 * 0.75), rel=1e-6)
    machine = Rates(5e9, 1e4)
    assert decode_tokens_per_s(mixed, machine) > decode_tokens_per_s(dense, machine)


def test_a_measured_batch_curve_replaces_the_guess() -> None:
    machine = Rates(2e10, 100.0, {4: 2.5})
    one = decode_step_s(MODELS[0], machine)
    assert decode_step_s(MODELS[0], machine, n_seq=4) == pytest.approx(2.5 * one)


@given(model=models, machine=rates, pace=st.floats(0.2, 3), n_seq=st.integers(1, 32))
def test_the_pace_of_one_model_is_a_factor_for_the_others(
    model: ModelShape, machine: Rates, pace: float, n_seq: int
) -> None:
    one, other = MODELS[0], model
    measured = pace * decode_tokens_per_s(one, machine, depth=8)
    prefill = prefill_tokens_per_s(one, machine, n_prompt=384) / pace
    found = paced(machine, one, decode=measured, depth=8, prefill=prefill, n_prompt=384)
    assert decode_tokens_per_s(one, found, depth=8) == pytest.approx(measured)
    assert prefill_tokens_per_s(one, found, n_prompt=384) == pytest.approx(prefill)
    before = decode_tokens_per_s(other, machine, n_seq=n_seq)
    assert decode_tokens_per_s(other, found, n_seq=n_seq) == pytest.approx(pace * before)
    again = paced(found, one, decode=measured, depth=8)
    assert again.decode_pace == pytest.approx(pace) and again.prefill_pace == 1


def test_a_model_that_lies_in_the_caches_sets_no_pace() -> None:
    tiny = replace(MODELS[0], bytes_by_type={"F16": 8_000_000}, embedding_bytes=1_000_000)
    machine = Rates(5e9, 100.0)
    assert paced(machine, tiny, decode=1.0, depth=8) is machine
