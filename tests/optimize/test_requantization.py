"""Which type is tried, by the measured speed of tensor types, and when it replaces what is installed."""

from __future__ import annotations

import asyncio
from pathlib import Path

import numpy as np
import pytest

from edgeagent.catalog.gguf.header import read_header
from edgeagent.catalog.sizing.speed import Rates
from edgeagent.cli import models_requantize
from edgeagent.optimize import requantization
from edgeagent.optimize.divergence import is_surely_above
from edgeagent.optimize.evaluate import EvaluationOptions
from edgeagent.optimize.requantization import (
    SAMPLE_TEXT,
    RequantizedFile,
    Trials,
    each_tried,
    forecasts,
)
from edgeagent.types.measurement import TensorRate
from tests.commands import run_here
from tests.conftest import ROOT, TALES

pytestmark = pytest.mark.process

LICENSE = ROOT / "LICENSE"
# Q8_0 is four times as fast as anything else here; a rate of nothing else is known.
RATES = Rates(
    1e9, 1.0, tensors={"Q8_0": TensorRate(4e8, 4e9), "F16": TensorRate(1e8, 1e9), "F32": TensorRate(1e8, 1e9)}
)  # fmt: skip


def test_types_are_forecast_by_their_speed_and_left_out_where_they_do_not_fit():
    found = forecasts(TALES, RATES, most_bytes=1 << 30, kinds=("Q4_0", "Q8_0", "F16"))
    assert found[0].file_type == "Q8_0" and {f.file_type for f in found} == {"Q4_0", "Q8_0", "F16"}
    best = found[0]
    assert best.prefill_gain > 1 and best.decode_gain > 1 and best.request_gain > 1
    least = min(found, key=lambda one: one.size_bytes)
    one = forecasts(TALES, RATES, most_bytes=least.size_bytes, kinds=("Q4_0", "Q8_0", "F16"))
    assert [f.file_type for f in one] == [least.file_type]


def test_the_text_that_comes_along_suffices_for_its_chunks():
    # A token has rarely more than five characters.
    assert len(SAMPLE_TEXT.read_text()) > 5 * 512 * requantization.TEXT_CHUNKS


def quants(models: Path) -> set[str]:
    (file,) = models.glob("tale/*.gguf")
    return {tensor.type.name for tensor in read_header(file).tensors}


def test_an_installed_model_is_replaced_only_within_the_bound(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(requantization, "TEXT_CHUNKS", 1)
    monkeypatch.setattr(requantization, "N_RUNS", 1)
    models = tmp_path / "models"
    where = ("--models-dir", models, "--state-dir", tmp_path / "state")
    command = ("models", "install", TALES, "--as", "tale", *where, "--requantize")
    bound = "EDGEAGENT_MODELS__REQUANTIZE_DIVERGENCE"
    done = run_here(*command, "q4_0", env={bound: "0.000000001"})
    assert done.returncode == 2 and "Q4_0 diverges by 0." in done.stderr, done.stderr
    before = quants(models)
    left = models / ".staging" / "requantize-tale" / "left-by-a-kill.gguf"
    left.parent.mkdir()
    left.write_bytes(b"GGUF")
    done = run_here(*command, "Q4_0", env={bound: "10"})
    assert done.returncode == 0, done.stderr
    assert "times as fast; KL divergence 0." in done.stderr and "tale is Q4_0 now" in done.stdout
    assert "Q4_0" in quants(models) and "Q4_0" not in before
    record = (models / "tale" / "installed.toml").read_text()
    assert (
        "requantized from" in record
        and "times as fast on this device, KL" in record
        and 'quant = "Q4_0"' in record
    )
    assert "tale: good" in run_here("models", "verify", *where).stdout
    done = run_here(*command, "Q9_9")
    assert (
        done.returncode == 2
        and "is no tensor type: use auto, best, never, or one of" in done.stderr
    )
    assert not left.parent.exists()


def test_types_are_tried_until_one_is_good_and_the_others_are_not_scored_to_the_end(tmp_path: Path):
    options = EvaluationOptions(texts=(LICENSE,), n_ctx=64, max_chunks=6, n_runs=0)
    steps = []

    async def each(bound: float) -> list[RequantizedFile]:
        tell = lambda what, n, total: steps.append((n, total))  # noqa: E731
        trials = Trials(TALES, tmp_path, options, bound, 2, tell)
        found = each_tried(trials, ["Q4_0", "Q8_0"])
        made = []
        async for one in found:
            made.append(one)
            assert [path.name for path in tmp_path.iterdir()] == [one.path.name]
        return made

    coarse, fine = asyncio.run(each(0.005))
    n = [one.figures.perplexity.n_tokens for one in (coarse, fine) if one.figures.perplexity]
    assert coarse.divergence > 0.005 > fine.divergence and n[0] < n[1] == 6 * 31
    assert sum(n for n, _ in steps) == steps[-1][1] == 6 + 2 * 7
    assert list(tmp_path.iterdir()) == []


def test_a_mean_is_surely_above_a_bound_by_three_standard_errors():
    values = np.array([0.0, 1.0] * 50)
    assert is_surely_above(values, 0.3) and not is_surely_above(values, 0.4)
    assert not is_surely_above(values[:4], 0.3)


def test_best_is_a_mixture_of_types(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(requantization, "TEXT_CHUNKS", 1)
    monkeypatch.setattr(requantization, "N_RUNS", 1)
    monkeypatch.setattr(requantization, "LEAST_GAIN", 0.0)
    monkeypatch.setattr(models_requantize, "rates_here", lambda here, **how: (RATES, "given"))
    models = tmp_path / "models"
    where = ("--models-dir", models, "--state-dir", tmp_path / "state")
    command = ("models", "install", TALES, "--as", "tale", *where, "--requantize", "best")
    bound = {"EDGEAGENT_MODELS__REQUANTIZE_DIVERGENCE": "10"}  # the first mixture is within it
    done = run_here(*command, "--requantize-text", LICENSE, env=bound)
    assert done.returncode == 0 and "A mixture of types is looked for" in done.stderr, done.stderr
    assert "mixed-0." in done.stderr and "times as fast on this device" in done.stdout
