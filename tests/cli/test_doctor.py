"""What `edgeagent doctor` chooses to measure."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from edgeagent.cli.shared.measured_rates import model_to_measure, predictions, rates_measured
from edgeagent.cli.shared.options import configured
from edgeagent.device.measurement import MeasuredRate, Measurement
from edgeagent.types.measurement import ModelMeasurement, PrefillDecode
from tests.conftest import MINILM, SMOLLM


def test_a_model_that_makes_embeddings_is_not_measured_as_one_that_generates(
    minilm_dir: Path, stories: Path, tmp_path: Path
):
    models = tmp_path / "models"
    shutil.copytree(minilm_dir / MINILM, models / MINILM)
    found = configured(None, models_dir=models, state_dir=tmp_path / "state")
    assert model_to_measure(found) is None
    shutil.copy(stories, models / "stories260k.gguf")
    assert model_to_measure(found) == models / "stories260k.gguf"


def measurement(model: str) -> Measurement:
    return Measurement(
        measured_utc_ms=1_790_000_000_000, wall_s=1.0, buffer_bytes=1,
        memory_gb_per_s=(MeasuredRate(1, 10.0),), gemm_gflop_per_s=(MeasuredRate(1, 100.0),),
        model=ModelMeasurement(
            model=model, weights_bytes=98_000_000, n_params=134_500_000, n_threads=1,
            decode_tok_s={1: 30.0}, batch_curve={1: 1.0, 4: 2.0}, prefill_tok_s={128: 150.0, 384: 140.0},
            options={"kv q8_0": PrefillDecode(120.0, 25.0)},
        ),
    )  # fmt: skip


def test_the_measured_model_sets_the_pace_that_the_others_are_foretold_with(
    smollm_dir: Path, tmp_path: Path
):
    found = configured(None, models_dir=smollm_dir, state_dir=tmp_path / "state")
    file = next((smollm_dir / SMOLLM).glob("*.gguf")).name
    rows = {row.name: row for row in predictions(found, measurement(file))}
    assert rows["decode"].with_pace == pytest.approx(30.0) and rows["decode"].sets_pace
    assert rows["prefill of 384"].with_pace == pytest.approx(140.0)
    later = rows["decode after 256, KV q8_0"]
    assert later.with_pace < 30.0 and later.measured == 25.0 and not later.sets_pace
    assert "decode after 256, KV f16" not in rows  # the time was up before it
    rates = rates_measured(found, measurement(file))
    assert rates is not None and rates.batch_curve == {1: 1.0, 4: 2.0}
    assert rates.decode_pace == pytest.approx(30.0 / rows["decode"].foretold)


def test_a_model_that_is_gone_sets_no_pace(smollm_dir: Path, tmp_path: Path):
    found = configured(None, models_dir=smollm_dir, state_dir=tmp_path / "state")
    gone = measurement("gone.gguf")
    rates = rates_measured(found, gone)
    assert rates is not None and rates.decode_pace == 1 and predictions(found, gone) == []
