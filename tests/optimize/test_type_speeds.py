"""The time of a token by tensor types, timed on zeros of a model's shapes."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from edgeagent.catalog.gguf.header import read_header
from edgeagent.cli.optimize import rates_of
from edgeagent.optimize import type_speeds
from edgeagent.optimize.evaluate import EvaluationOptions
from edgeagent.optimize.quantize import tensor_bytes
from edgeagent.optimize.sensitivity import quantizable
from edgeagent.optimize.type_speeds import (
    FALLBACK,
    predicted_speeds,
    speeds_of,
    timed_speeds,
    unmixed,
    write_zeros,
)

ROOT = Path(__file__).resolve().parents[2]
TALES = ROOT / "tests/data/tales260K.gguf"
ASSISTANT = ROOT / "models/edge-assistant-s/edge-assistant-s.Q8_0.gguf"


@pytest.mark.parametrize("kind", ["Q4_1", "Q6_K", "F16"])
def test_the_file_of_zeros_has_the_shapes_of_the_model_in_one_type(kind, tmp_path):
    header = read_header(TALES)
    write_zeros(header, tmp_path / "zeros.gguf", kind)
    zeros = read_header(tmp_path / "zeros.gguf")
    assert {t.name: t.shape for t in zeros.tensors} == {t.name: t.shape for t in header.tensors}
    assert zeros.metadata == header.metadata
    types = {t.name: t.type.name for t in zeros.tensors}
    assert {types[name] for name in quantizable(header)} <= {kind, FALLBACK}
    assert types["blk.0.attn_norm.weight"] == "F32"
    assert zeros.file_bytes - zeros.data_offset == sum(
        tensor_bytes(t.n_elements, t.type.name) for t in zeros.tensors
    )
    assert not any((tmp_path / "zeros.gguf").read_bytes()[zeros.data_offset :])


def test_a_file_of_two_types_takes_the_mean_of_their_times():
    header = read_header(TALES)
    speeds = speeds_of(header, {"Q8_0": 0.2, "Q4_0": 0.1})
    names = list(speeds.shares)
    assert speeds.seconds(dict.fromkeys(names, "Q4_0")) == pytest.approx(0.1)
    tables = {"token_embd.weight", "output.weight"} & {t.name for t in header.tensors}
    assert ("token_embd.weight" in speeds.shares) == (len(tables) == 1)
    half = {name: "Q8_0" if i % 2 else "Q4_0" for i, name in enumerate(names)}
    assert 0.1 < (speeds.seconds(half) or 0) < 0.2
    assert speeds.seconds({**half, names[0]: "Q5_1"}) is None


def test_a_type_that_suits_some_matrices_only_is_told_from_the_fallback_of_the_others():
    header = read_header(ASSISTANT)
    shares = speeds_of(header, {}).shares
    suited = sum(
        shares[t.name] for t in header.tensors if t.name in shares and t.shape[0] % 256 == 0
    )
    assert 0 < suited < 1
    found = unmixed(header, {"Q8_0": 0.2, "Q6_K": 0.2 * (1 - suited) + 0.05 * suited})
    assert found == {"Q8_0": pytest.approx(0.2), "Q6_K": pytest.approx(0.05)}
    assert "Q6_K" not in unmixed(read_header(TALES), {"Q8_0": 0.2, "Q6_K": 0.2})


@pytest.mark.process
def test_coarser_types_are_expected_to_be_faster_on_a_small_device():
    speeds = predicted_speeds(TALES, ("Q4_0", "Q8_0", "F16"), rates_of("pi5-8gb"))
    assert speeds.token_s["Q4_0"] <= speeds.token_s["Q8_0"] < speeds.token_s["F16"]


@pytest.mark.process
def test_types_are_timed_in_a_worker_and_leave_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(type_speeds, "QUIET_RUNS", 1)
    found = asyncio.run(timed_speeds(TALES, ("Q4_0",), tmp_path, EvaluationOptions()))
    assert set(found.token_s) == {"Q4_0", FALLBACK} and min(found.token_s.values()) > 0
    assert sum(found.shares.values()) == pytest.approx(1)
    assert list(tmp_path.iterdir()) == []
