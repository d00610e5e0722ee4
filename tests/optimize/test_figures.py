"""Tables, files and the best model by metric, from figures that were not measured."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import pytest

from edgeagent.errors import InvalidParameter
from edgeagent.optimize.divergence import Divergence, Perplexity
from edgeagent.optimize.figure_files import draw, write_csv, write_json
from edgeagent.optimize.figures import ModelFigures, RunFigures, Spread, best_by_metric
from edgeagent.optimize.tensor_bits import TensorBits

BITS = TensorBits({"Q4_0": 900, "F32": 100}, {"Q4_0": 506, "F32": 400})
RUNS = (
    RunFigures(10, 100, 50, 5, 7, 5),
    RunFigures(30, 300, 40, 4, 9, 4),
    RunFigures(20, 200, 60, 6, 8, 6),
)
SMALL = ModelFigures(
    "small", Path("small.gguf"), 1000, 1000, BITS, RUNS, Perplexity(20.0, 0.5, 100),
    Divergence(0.02, 0.001, 0.05, 0.2, 0.9, 0.93),
)  # fmt: skip
LARGE = replace(
    SMALL, name="large", size_bytes=2000, perplexity=Perplexity(19.0, 0.5, 100),
    divergence=Divergence(0.01, 0.001, 0.02, 0.1, 0.5, 0.97),
)  # fmt: skip


def test_the_spread_of_runs_is_their_median_and_their_ends():
    assert SMALL.spread("load_ms") == Spread(20, 10, 30)
    assert replace(SMALL, runs=()).spread("load_ms") is None


def test_bits_count_all_tensors_and_are_told_by_type():
    assert BITS.bits_per_weight == pytest.approx(8 * 906 / 1000)
    assert BITS.described() == "Q4_0 90%, F32 10%"


def test_the_best_model_depends_on_the_metric():
    best = best_by_metric([SMALL, LARGE])
    assert best["size_bytes"] == "small" and best["perplexity"] == "large"
    assert best["kld_mean"] == "large" and best["same_top"] == "large"


def test_a_metric_that_only_one_model_has_names_no_best():
    assert "kld_mean" not in best_by_metric([replace(SMALL, divergence=None), LARGE])


def test_json_has_every_run_and_says_how_it_was_measured(tmp_path):
    write_json([SMALL, LARGE], {"machine": "a board"}, tmp_path / "out.json")
    told = json.loads((tmp_path / "out.json").read_text())
    assert told["machine"] == "a board" and told["best"]["size_bytes"] == "small"
    assert [run["load_ms"] for run in told["models"][0]["runs"]] == [10, 30, 20]
    assert told["models"][1]["kl_divergence"]["mean"] == 0.01


def test_csv_has_a_line_for_each_model_with_the_ends_of_its_runs(tmp_path):
    write_csv([SMALL, replace(LARGE, runs=())], tmp_path / "out.csv")
    small, large = csv.DictReader((tmp_path / "out.csv").read_text().splitlines())
    assert small["decode_tok_s"] == "5" and small["decode_tok_s_low"] == "4"
    assert large["decode_tok_s"] == "" and large["kld_mean"] == "0.01"


def test_a_picture_needs_something_to_show(tmp_path):
    with pytest.raises(InvalidParameter, match="nothing to draw"):
        draw([replace(SMALL, runs=(), perplexity=None, divergence=None)], tmp_path / "out.png")
    draw([SMALL, replace(LARGE, divergence=None)], tmp_path / "out.png")
    assert (tmp_path / "out.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("write", [write_csv, draw])
def test_a_file_that_cannot_be_written_is_named(tmp_path, write):
    with pytest.raises(InvalidParameter, match=r"none/out\S* cannot be written"):
        write([SMALL], tmp_path / "none" / "out.csv")
