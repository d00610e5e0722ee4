"""`edgeagent forge` at the terminal: what is wrong is said in one line, with a way out."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.commands import run_here
from tests.conftest import SHARED

DATA = SHARED / "data"


def forge(*args: object) -> subprocess.CompletedProcess[str]:
    return run_here("forge", *args)


def refused(*args: object) -> str:
    done = forge(*args)
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    return " ".join(done.stderr.split())


def test_a_recipe_that_is_wrong_is_refused_before_anything_is_read(tmp_path):
    recipe = tmp_path / "mine.toml"
    recipe.write_text('name = "mine"\n[plan]\nepochs = 0\nlearning_rate = 1e-3\n')
    said = refused("train", recipe, "--data", tmp_path / "nowhere", "--runs", tmp_path / "runs")
    assert "plan.epochs" in said
    assert not (tmp_path / "runs").exists()


def test_a_missing_data_set_is_named_with_where_it_comes_from(tmp_path):
    said = refused("train", "sentence-teacher", "--data", tmp_path, "--runs", tmp_path / "runs")
    assert "clinc150.json" in said
    assert "github.com/clinc/oos-eval" in said


def test_a_data_set_with_another_checksum_is_refused(tmp_path):
    if not (DATA / "clinc150").is_dir():
        pytest.skip("the data sets are not beside this checkout")
    shutil.copytree(DATA / "clinc150", tmp_path / "clinc150")
    path = tmp_path / "clinc150" / "clinc150.json"
    path.chmod(0o644)
    path.write_bytes(path.read_bytes() + b"\n")
    said = refused("distill", "edge-assistant-s", "--data", tmp_path, "--runs", tmp_path / "runs")
    assert "clinc150.json" in said
    assert "SHA-256" in said


@pytest.mark.process
def test_what_was_not_trained_cannot_be_exported(tmp_path, runs):
    said = refused("export", "edge-assistant-s", "--data", DATA, "--runs", runs, "--out", tmp_path)
    assert "edge-assistant-s" in said
    assert "train its recipe first" in said
    assert not list(tmp_path.iterdir())


@pytest.mark.process
def test_a_pupil_whose_teacher_is_missing_says_which(tmp_path, runs):
    path = tmp_path / "pupil.toml"
    path.write_text(
        'name = "pupil"\nn_variants = 1\n'
        "[shape]\nn_embd = 16\nn_layers = 1\nn_head = 2\nn_head_kv = 1\nn_ff = 16\n"
        '[plan]\nepochs = 1\nlearning_rate = 1e-3\n[[teachers]]\nrun = "nobody"\n'
    )
    said = refused("distill", path, "--data", DATA, "--runs", runs)
    assert "nobody" in said
    assert "train its recipe first" in said


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> Path:
    """A folder of trainings whose published files are those that the tests have fetched already."""
    if not (DATA / "clinc150").is_dir():
        pytest.skip("the data sets are not beside this checkout")
    from edgeagent.forge import published_models
    from tests.conftest import CACHE, alone

    kept = CACHE / "published"
    with alone():
        published_models.fetch(kept)
    folder = tmp_path_factory.mktemp("runs")
    (folder / "published").symlink_to(kept)
    return folder


@pytest.mark.process
def test_a_file_that_is_not_there_is_not_measured(runs, tmp_path):
    said = refused("evaluate", tmp_path / "none.gguf", "--data", DATA, "--runs", runs)
    assert "none.gguf is missing" in said


def test_help_shows_the_way_from_a_teacher_to_a_file():
    shown = forge("--help").stdout
    for step in ("train sentence-teacher", "distill edge-assistant-s", "export edge-assistant-s"):
        assert step in shown
