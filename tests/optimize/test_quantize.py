"""Quantized files by type and by recipe: exact sizes beforehand, the same bytes again, and refusals."""

from __future__ import annotations

import os
import signal
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edgeagent.catalog.gguf.header import read_header
from edgeagent.engine.llama.ggml import rounded
from edgeagent.errors import EdgeAgentError, EngineDied, InvalidParameter
from edgeagent.optimize.imatrix_file import ImportanceMatrix, read_imatrix, write_imatrix
from edgeagent.optimize.partial_file import partial_file
from edgeagent.optimize.quantize import CHILD, planned, predicted_bytes, quantize
from edgeagent.optimize.recipe import Recipe, read_recipe, write_recipe
from edgeagent.optimize.surgery import open_file
from edgeagent.optimize.work_folder import work_folder
from edgeagent.worker import spawn
from tests.commands import run_here

pytestmark = pytest.mark.process

ROOT = Path(__file__).resolve().parents[2]
TALES = ROOT / "tests/data/tales260K.gguf"
LICENSE = ROOT / "LICENSE"
ASSISTANT = ROOT / "models/edge-assistant-s/edge-assistant-s.Q8_0.gguf"


def types_of(path):
    return {tensor.name: tensor.type.name for tensor in read_header(path).tensors}


@pytest.fixture(scope="module")
def importance(tmp_path_factory):
    """The importance matrix of the tiny model over the licence, by the command."""
    path = tmp_path_factory.mktemp("importance") / "tales.imatrix.gguf"
    done = run_here(
        "imatrix",
        TALES,
        "--text",
        LICENSE,
        "--out",
        path,
        "--ctx",
        64,
        "--chunks",
        20,
        "--threads",
        1,
    )
    assert done.returncode == 0 and "20 chunks of 64 tokens" in done.stdout, done.stderr
    return path


@pytest.mark.parametrize(
    "recipe",
    [
        Recipe("Q8_0"),
        Recipe("Q4_K_M"),
        Recipe("F16"),
        Recipe("Q4_0", {"blk.0.attn_q.weight": "F16", "token_embd.weight": "Q5_1"}),
        Recipe("Q5_0", dropped_layers=(1, 3)),
    ],
    ids=["Q8_0", "Q4_K_M", "F16", "tensors", "dropped"],
)
def test_the_size_of_a_file_is_known_to_the_byte_before_it_is_made(recipe, tmp_path):
    (types,) = planned(TALES, [recipe])
    size = predicted_bytes(read_header(TALES), types, recipe.dropped_layers)
    quantize(TALES, tmp_path / "out.gguf", recipe, n_threads=1)
    assert (tmp_path / "out.gguf").stat().st_size == size
    assert types_of(tmp_path / "out.gguf") == types
    for name, kind in recipe.tensors.items():
        assert types[name] == kind


def test_a_recipe_makes_the_same_file_again(importance, tmp_path):
    made = quantize(
        TALES, tmp_path / "one.gguf", Recipe("Q4_0", {"blk.1.ffn_up.weight": "Q5_1"}),
        importance=importance, n_threads=1,
    )  # fmt: skip
    write_recipe(made, tmp_path / "one.toml")
    again = read_recipe(tmp_path / "one.toml")
    assert again == made and again.importance_sha256 and again.source_name == TALES.name
    quantize(TALES, tmp_path / "two.gguf", again, importance=importance, n_threads=2)
    assert (tmp_path / "one.gguf").read_bytes() == (tmp_path / "two.gguf").read_bytes()
    with pytest.raises(Exception, match="needs the importance matrix with the digest"):
        quantize(TALES, tmp_path / "two.gguf", again)
    with pytest.raises(Exception, match="is not the file of the recipe"):
        quantize(tmp_path / "one.gguf", tmp_path / "two.gguf", again, importance=importance)


def test_importance_changes_the_weights_of_a_file(importance, tmp_path):
    quantize(TALES, tmp_path / "plain.gguf", Recipe("Q4_0"), n_threads=1)
    quantize(TALES, tmp_path / "matrix.gguf", Recipe("Q4_0"), importance=importance, n_threads=1)
    names = tuple(f"blk.{i}.ffn_up.weight" for i in range(3))
    without = Recipe("Q4_0", plain=names[1:])
    made = quantize(TALES, tmp_path / "one.gguf", without, importance=importance, n_threads=1)
    write_recipe(made, tmp_path / "one.toml")
    assert read_recipe(tmp_path / "one.toml").plain == names[1:]
    plain, matrix, one = (
        {t.name: t.data.tobytes() for t in open_file(tmp_path / f"{name}.gguf").tensors}
        for name in ("plain", "matrix", "one")
    )
    assert one[names[0]] == matrix[names[0]] != plain[names[0]]
    assert all(one[name] == plain[name] for name in names[1:])
    assert all(matrix[name] != plain[name] for name in names)


def test_a_matrix_has_the_activations_of_every_layer_and_goes_on_where_it_was(importance, tmp_path):
    whole = read_imatrix(importance)
    layers = {name.split(".")[1] for name in whole.sums if name.startswith("blk.")}
    assert len(layers) == read_header(TALES).metadata["llama.block_count"]
    assert all((values >= 0).all() and values.any() for values in whole.sums.values())
    assert whole.n_rows["blk.0.attn_q.weight"] == 20 * 63
    arguments = ("imatrix", TALES, "--text", LICENSE, "--ctx", 64, "--threads", 1)
    part = tmp_path / "part.gguf"
    assert run_here(*arguments, "--chunks", 8, "--out", part).returncode == 0
    # As an interrupted command over all 20 chunks leaves it behind.
    begun = replace(read_imatrix(part), data_sha256=whole.data_sha256, n_chunks_in_all=20)
    write_imatrix(begun, ["LICENSE"], part)
    assert run_here(*arguments, "--chunks", 20, "--out", part).returncode == 0
    assert part.read_bytes() == importance.read_bytes()
    done = run_here(*arguments, "--chunks", 4, "--out", part)
    assert done.returncode == 2 and "of another model or of other texts" in done.stderr


def test_a_matrix_is_read_as_it_was_written(tmp_path):
    matrix = ImportanceMatrix({"blk.0.x.weight": np.arange(4.0)}, {"blk.0.x.weight": 2}, 1, 512)
    write_imatrix(matrix, ["a"], tmp_path / "m.gguf")
    found = read_imatrix(tmp_path / "m.gguf")
    assert list(found.columns()["blk.0.x.weight"]) == [0, 0.5, 1, 1.5]
    assert (found.n_chunks, found.chunk_tokens, found.data_sha256) == (1, 512, None)


def test_rounding_weighs_columns_by_their_importance():
    values = np.random.default_rng(1).standard_normal((64, 64)).astype(np.float32)
    columns = np.ones(64, np.float32)
    columns[:8] = 1000
    plain = (values - rounded(values, "Q4_0", np.ones(64, np.float32))) ** 2
    weighed = (values - rounded(values, "Q4_0", columns)) ** 2
    assert weighed[:, :8].mean() < 0.7 * plain[:, :8].mean()
    assert np.abs(values - rounded(values, "F16", None)).max() < 2e-3


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ((), "either --type or --recipe"),
        (("--type", "Q9_K"), "There is no quantization 'Q9_K'"),
        (("--type", "Q4_0", "--tensor", "nothing=Q8_0"), "matches no tensor"),
        (("--type", "Q4_0", "--tensor", "(=Q8_0"), "is not a regular expression"),
        (("--type", "Q4_0", "--tensor", "ffn_up=Q9"), "has the type 'Q9'"),
        (("--type", "Q4_0", "--imatrix", LICENSE), "is not a GGUF file"),
        (("--recipe", LICENSE), "cannot be read"),
    ],
)
def test_what_makes_no_sense_is_refused_and_leaves_no_file(arguments, reason, tmp_path):
    done = run_here("quantize", TALES, tmp_path / "out.gguf", *arguments)
    assert done.returncode == 2 and reason in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("recipe", "reason"),
    [
        (Recipe("Q8_0", {"blk.0.nothing.weight": "Q8_0"}), "no tensor 'blk.0.nothing.weight'"),
        (Recipe("Q8_0", plain=("nothing",)), "no tensor 'nothing'"),
        (Recipe("Q8_0", dropped_layers=(-1, 2)), "no layer -1"),
        (Recipe("Q8_0", dropped_layers=(99,)), "no layer 99"),
        (Recipe("Q8_0", dropped_layers=(0, 1, 2, 3, 4)), "All 5 layers of the model are left out"),
    ],
)
def test_a_recipe_for_another_model_is_refused(recipe, reason, quantized_apart):
    with pytest.raises(EdgeAgentError, match=reason):
        planned(TALES, [recipe])


@pytest.mark.parametrize(
    "text",
    [
        "a = " + "[" * 100_000,
        '[tensors]\n"a" = 3',
        "\x00",
        '[quantization]\nfile_type = "Q4_0"\n[source]\nname = "\\u001b[31m"',
        '[quantization]\nfile_type = "Q4_0"\n[source]\nsha256 = "\\u001b"',
    ],
)
def test_a_damaged_recipe_is_refused(text, tmp_path):
    path = tmp_path / "recipe.toml"
    path.write_text(text)
    with pytest.raises(InvalidParameter, match="cannot be read"):
        read_recipe(path)
    with pytest.raises(InvalidParameter, match="not a regular file"):
        read_recipe(Path("/dev/zero"))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -1.0])
def test_a_matrix_with_sums_that_cannot_be_is_refused(value, tmp_path):
    matrix = ImportanceMatrix(
        {"blk.0.x.weight": np.array([1.0, value])}, {"blk.0.x.weight": 2}, 1, 512
    )
    write_imatrix(matrix, ["a"], tmp_path / "m.gguf")
    with pytest.raises(InvalidParameter, match="cannot be"):
        read_imatrix(tmp_path / "m.gguf")


def test_the_command_writes_a_file_and_its_recipe(importance, tmp_path, quantized_apart):
    out = tmp_path / "out.gguf"
    arguments = ("--type", "q4_0", "--tensor", r"ffn_(up|gate)=q5_0", "--imatrix", importance)
    dry = run_here("quantize", TALES, out, *arguments, "--dry-run")
    assert dry.returncode == 0 and not out.exists()
    done = run_here("quantize", TALES, out, *arguments, "--threads", 1)
    assert done.returncode == 0, done.stderr
    assert dry.stdout.startswith(f"{out.stat().st_size} bytes")
    kinds = types_of(out)
    assert kinds["blk.0.ffn_up.weight"] == "Q5_0" and kinds["blk.0.attn_q.weight"] == "Q4_0"


def test_a_child_that_was_killed_is_no_damaged_file(tmp_path, monkeypatch, quantized_apart):
    killed = subprocess.CompletedProcess([], -signal.SIGKILL, b"", b"")
    plain = spawn.run
    monkeypatch.setattr(
        spawn, "run", lambda *args, **how: killed if args == (CHILD,) else plain(*args, **how)
    )
    with pytest.raises(
        EngineDied, match=r"ended \(signal SIGKILL\), as the kernel does it where memory"
    ):
        quantize(TALES, tmp_path / "q.gguf", Recipe("Q4_0"))
    assert list(tmp_path.iterdir()) == []


def test_two_processes_do_not_write_one_file(tmp_path):
    target = tmp_path / "out.gguf"
    with partial_file(target, TALES) as partial:
        partial.write_bytes(b"whole")
        with pytest.raises(InvalidParameter, match=r"Another process writes .*out\.gguf: wait"):
            quantize(TALES, target, Recipe("Q4_0"))
        assert partial.read_bytes() == b"whole" and not target.exists()
    assert [path.name for path in tmp_path.iterdir()] == ["out.gguf"]
    with pytest.raises(OSError, match="full"), partial_file(target, None):
        raise OSError("full")
    assert target.read_bytes() == b"whole" and len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("name", ["source.gguf", "link.gguf", "pipe"])
def test_neither_the_source_nor_a_device_is_replaced(name, tmp_path):
    source = tmp_path / "source.gguf"
    source.write_bytes(TALES.read_bytes())
    (tmp_path / "link.gguf").symlink_to(source)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InvalidParameter, match="choose another name"):
        quantize(source, tmp_path / name, Recipe("Q4_0"))
    assert source.read_bytes() == TALES.read_bytes() and (tmp_path / "pipe").is_fifo()
    with pytest.raises(OSError, match="not a regular file"):
        write_recipe(Recipe("Q4_0"), tmp_path / "pipe")
    with pytest.raises(OSError, match="No such device"), work_folder_of(tmp_path):
        pass


def work_folder_of(folder):
    """With a FIFO as its lock, which nobody reads."""
    (folder / "work").mkdir()
    os.mkfifo(folder / "work/.lock")
    return work_folder(folder)


def test_a_source_of_few_bits_is_refused(tmp_path):
    path = tmp_path / "two.gguf"
    quantize(ASSISTANT, path, Recipe("Q2_K", {"token_embd.weight": "Q2_K"}))
    done = run_here("quantize", path, tmp_path / "out.gguf", "--type", "Q4_0")
    assert done.returncode == 2 and "bits a weight already" in done.stderr
