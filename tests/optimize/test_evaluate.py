"""Models measured in real workers: the figures of llama.cpp itself, and errors for what cannot be measured.

The expected figures were computed in November 2026 (AMD EPYC Zen 4) by `perplexity` and `kl_divergence` of
llama.cpp's tools/perplexity/perplexity.cpp, from the source that llama-cpp-python 0.3.36 vendors, with one
sequence of 256 tokens a batch, as `llama-perplexity -c 256 -b 256` does:

    -m tales260K.gguf -f LICENSE --kl-divergence-base base.bin
    -m small.gguf -f LICENSE --kl-divergence-base base.bin --kl-divergence
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from edgeagent.catalog.gguf.header import read_header
from edgeagent.engine.llama.quantization import Quantization, quantize
from edgeagent.errors import InvalidParameter
from edgeagent.optimize import texts
from tests.commands import run_here

pytestmark = pytest.mark.process

ROOT = Path(__file__).resolve().parents[2]
TALES = ROOT / "tests/data/tales260K.gguf"
TEXT = ROOT / "LICENSE"
PERPLEXITY, PERPLEXITY_ERROR = 1757.1181, 73.57931
SMALL_PERPLEXITY = 1668.3478
KLD, KLD_P90, KLD_P99, KLD_P999, SAME_TOP = 0.069285, 0.181564, 0.499472, 0.797368, 0.84506


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    path = tmp_path_factory.mktemp("optimize") / "small.gguf"
    quantize(TALES, path, Quantization("Q4_0", n_threads=1))
    return path


@pytest.fixture(scope="module")
def measured(small, tmp_path_factory):
    """The output of a whole evaluation, and the figures it wrote."""
    folder = tmp_path_factory.mktemp("figures")
    done = run_here(
        "evaluate", small, "--against", TALES, "--text", TEXT, "--ctx", 256, "--runs", 2,
        "--threads", 1, "--json", folder / "out.json", "--csv", folder / "out.csv",
        "--png", folder / "out.png",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout, json.loads((folder / "out.json").read_text()), folder


def test_perplexity_and_divergence_are_those_of_llama_perplexity(measured):
    reference, model = measured[1]["models"]
    assert reference["perplexity"]["value"] == pytest.approx(PERPLEXITY, rel=0.005)
    assert reference["perplexity"]["error"] == pytest.approx(PERPLEXITY_ERROR, rel=0.01)
    assert model["perplexity"]["value"] == pytest.approx(SMALL_PERPLEXITY, rel=0.005)
    found = model["kl_divergence"]
    assert found["mean"] == pytest.approx(KLD, rel=0.005)
    assert found["p90"] == pytest.approx(KLD_P90, rel=0.02)
    assert found["p99"] == pytest.approx(KLD_P99, rel=0.02)
    assert found["p999"] == pytest.approx(KLD_P999, rel=0.02)
    assert found["same_top"] == pytest.approx(SAME_TOP, abs=0.005)


def test_size_and_bits_are_those_of_the_file(measured, small):
    reference, model = measured[1]["models"]
    assert model["size_bytes"] == small.stat().st_size
    assert reference["bits_per_weight"] == 32 and 4.5 < model["bits_per_weight"] < 8


def test_each_run_has_its_own_speed_and_memory(measured):
    for model in measured[1]["models"]:
        assert len(model["runs"]) == 2
        for run in model["runs"]:
            others_cores = run.pop("others_cores")  # None where a run was too short to tell
            assert others_cores is None or others_cores >= 0
            energy_j = run.pop("energy_j")  # None where nothing measures it
            assert energy_j is None or energy_j > 0
            assert all(value > 0 for value in run.values())


def test_the_table_names_the_best_model_of_each_metric(measured):
    out, _, folder = measured
    assert "tales260K" in out and "small" in out and "KLD 99.9%" in out
    assert "size: small" in out and "perplexity: " in out
    assert len((folder / "out.csv").read_text().splitlines()) == 3
    assert (folder / "out.png").read_bytes().startswith(b"\x89PNG")


def test_another_vocabulary_is_not_compared(tmp_path):
    other = ROOT / "models/edge-assistant-s/edge-assistant-s.Q8_0.gguf"
    done = run_here(
        "evaluate",
        other,
        "--against",
        TALES,
        "--text",
        TEXT,
        "--ctx",
        64,
        "--runs",
        0,
        "--chunks",
        1,
    )
    assert done.returncode == 2 and "only models of one vocabulary" in done.stderr


@pytest.mark.parametrize(
    ("text", "reason"),
    [(b"", "is empty"), (b"\n \n", "is empty"), (b"\xff\xfe", "not UTF-8"), (b"Once", "one chunk takes 512")],
)  # fmt: skip
def test_a_text_that_cannot_be_scored_is_refused(tmp_path, text, reason):
    (tmp_path / "text.txt").write_bytes(text)
    done = run_here("evaluate", TALES, "--text", tmp_path / "text.txt", "--runs", 0)
    assert done.returncode == 2 and reason in done.stderr


def test_a_reference_without_a_text_is_refused():
    done = run_here("evaluate", TALES, "--against", TALES)
    assert done.returncode == 2 and "give --text" in done.stderr


def test_what_is_no_model_is_refused(tmp_path):
    (tmp_path / "no.gguf").write_bytes(b"GGML" + bytes(100))
    done = run_here("evaluate", tmp_path / "no.gguf", "--text", TEXT)
    assert done.returncode == 2 and "is not a GGUF file" in done.stderr


def test_weights_that_are_no_numbers_are_said(tmp_path):
    header = read_header(TALES)
    (weight,) = [t for t in header.tensors if t.name == "blk.1.ffn_up.weight"]
    damaged = bytearray(TALES.read_bytes())
    at = header.data_offset + weight.offset
    damaged[at : at + 4] = b"\x00\x00\xc0\x7f"
    (tmp_path / "nan.gguf").write_bytes(damaged)
    done = run_here(
        "imatrix", tmp_path / "nan.gguf", "--text", TEXT, "--out", tmp_path / "i.gguf", "--ctx", 64
    )
    assert done.returncode == 2 and "predicts values that are no numbers" in done.stderr, (
        done.stderr
    )
    assert done.stderr.count("\n") == 1 and [p.name for p in tmp_path.iterdir()] == ["nan.gguf"]


def test_a_text_is_a_regular_file_of_a_bounded_size(tmp_path, monkeypatch):
    os.mkfifo(tmp_path / "pipe")
    for path in (Path("/dev/zero"), tmp_path / "pipe", tmp_path):
        with pytest.raises(
            InvalidParameter, match=r"cannot be read .*: name a text file of at most"
        ):
            texts.read_text(path)
    monkeypatch.setattr(texts, "MAX_TEXT_BYTES", 9)
    with pytest.raises(InvalidParameter, match="the limit is 9"):
        texts.read_text(TEXT)
