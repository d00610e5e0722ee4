"""Sensitivity, allocation and search on a tiny model in real workers."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

import numpy as np
import pytest

from edgeagent.catalog.catalog_file import parse_catalog
from edgeagent.catalog.gguf.header import read_header
from edgeagent.cli.optimize import rates_of
from edgeagent.errors import InvalidParameter
from edgeagent.optimize import proposals
from edgeagent.optimize import search as searching
from edgeagent.optimize.allocation import Budget, Option
from edgeagent.optimize.candidates import Bench, Candidate, loaded_otherwise, measured_candidates
from edgeagent.optimize.client import scoring_worker
from edgeagent.optimize.evaluate import EvaluationOptions, reference_of
from edgeagent.optimize.imatrix import open_config
from edgeagent.optimize.journal import Journal
from edgeagent.optimize.mixed_precision import best_allocation, seeds_of
from edgeagent.optimize.proposals import mixed_budgets, promising
from edgeagent.optimize.protocol import Errors
from edgeagent.optimize.quantize import planned, predicted_bytes, quantize
from edgeagent.optimize.recipe import Recipe, read_recipe
from edgeagent.optimize.search_options import SearchOptions
from edgeagent.optimize.sensitivity import (
    TensorGroup,
    grid_of,
    groups_of,
    kinds_for,
    mean_divergence,
    measure_costs,
    quantizable,
)
from edgeagent.optimize.targets import Targets
from edgeagent.optimize.texts import chunks_of
from edgeagent.optimize.type_speeds import TypeSpeeds
from edgeagent.optimize.work_folder import work_folder
from edgeagent.types.engine_flags import CacheFlags
from tests.commands import run_here

pytestmark = pytest.mark.process

ROOT = Path(__file__).resolve().parents[2]
TALES = ROOT / "tests/data/tales260K.gguf"
LICENSE = ROOT / "LICENSE"


def test_groups_hold_every_matrix_once():
    header = read_header(TALES)
    for together in (1, 2, 100):
        names = [name for group in groups_of(header, together) for name in group.tensors]
        assert sorted(names) == sorted(quantizable(header)) and len(set(names)) == len(names)
    assert not [name for name in quantizable(header) if "norm" in name]


@pytest.mark.parametrize(
    ("n_columns", "has", "has_not"),
    [(576, "Q5_0", "Q4_K"), (1536, "Q6_K", "F16"), (64, "IQ4_NL", "Q3_K"), (172, None, "Q4_0")],
)
def test_the_types_of_a_matrix_fit_its_rows(n_columns, has, has_not):
    kinds = kinds_for(n_columns)
    assert (has is None or has in kinds) and has_not not in kinds


def test_the_smallest_type_whose_grid_a_tensor_lies_on_is_found():
    fine, coarse = (
        Errors((0.0,), (0.0,), (1e-7,), (0.001,)),
        Errors((0.1,), (0.1,), (0.004,), (0.006,)),
    )
    assert grid_of({"Q4_0": coarse, "Q4_1": fine, "Q5_1": fine, "Q8_0": fine}) == "Q4_1"
    assert grid_of({"Q4_0": coarse, "Q5_0": coarse}) is None
    # A few heavy columns that are rounded well say nothing about the others.
    assert grid_of({"Q4_0": Errors((1e-6,), (1e-6,), (0.005,), (0.006,))}) is None


def test_a_dequantized_source_costs_nothing_in_its_own_type(tmp_path):
    quantize(TALES, tmp_path / "q.gguf", Recipe("Q5_0"), n_threads=1)
    quantize(tmp_path / "q.gguf", tmp_path / "f.gguf", Recipe("F16"), n_threads=1)
    header = read_header(tmp_path / "f.gguf")
    shape = {tensor.name: tensor.shape for tensor in header.tensors}
    name = "blk.1.ffn_up.weight"
    group = TensorGroup("ffn_up", (name,))

    async def measured():
        async with scoring_worker(open_config(tmp_path / "f.gguf", 64, 1)) as client:
            columns = np.linspace(0.1, 9, shape[name][0], dtype=np.float32)
            await client.set_importance({name: columns.tobytes()})
            reference = await reference_of(client, await chunks_of(client, [LICENSE], 64, 2))
            journal = Journal(tmp_path / "journal.jsonl", "search")
            (costs,) = await measure_costs(client, header, reference, [group], journal)
            mixtures = [{name: "Q4_0"}, {name: "Q5_0"}, {name: "Q8_0"}, {name: "F16"}]
            size = next(o.n_bytes for o in costs.options if o.kind == "Q5_0")
            best = await best_allocation(
                client, reference, [group], [costs], Budget(size), journal, mixtures=mixtures
            )
            return costs, best

    costs, best = asyncio.run(measured())
    cost = {(o.kind, o.is_plain): o.cost for o in costs.options}
    assert costs.grid == "Q5_0" and cost["Q5_0", True] < 1e-3 * cost["Q5_1", True]
    assert cost["Q4_0", False] < cost["Q4_0", True]  # elsewhere the matrix helps
    assert best is not None and best.allocation.kinds == {name: "Q5_0"} and best.kld < 1e-6


def test_the_largest_mixtures_that_fit_are_beginnings_with_and_without_the_matrix():
    options = {
        name: [
            Option(k, n, 1.0, is_plain)
            for k, n in (("Q4_0", 4), ("Q5_0", 5), ("Q8_0", 8)) for is_plain in (False, True)
        ]
        for name in "ab"
    }  # fmt: skip
    mixtures = [
        {"a": "Q8_0", "b": "Q8_0", "norm": "F32"},
        {"a": "Q4_0", "b": "Q4_0"},
        {"a": "Q4_0", "b": "Q5_0"},
        {"a": "Q5_0", "b": "Q5_0"},
        {"a": "Q5_0", "b": "F16"},
    ]
    found = seeds_of(mixtures, options, Budget(12))
    assert [one.n_bytes for one in found] == [10, 10, 9, 9]
    assert [one.plain for one in found] == [(), ("a", "b"), (), ("a", "b")]


def test_altered_weights_predict_worse_and_are_given_back():
    async def measured():
        async with scoring_worker(open_config(TALES, 64, 1)) as client:
            chunks = await chunks_of(client, [LICENSE], 64, 4)
            reference = await reference_of(client, chunks)
            found = []
            for types in ({}, {"blk.0.attn_v.weight": "Q4_0"}, {"blk.0.attn_v.weight": "Q8_0"}, {}):
                await client.alter(types)
                found.append(await mean_divergence(client, reference))
            with pytest.raises(InvalidParameter, match="cannot be altered"):
                await client.alter({"blk.9.attn_v.weight": "Q4_0"})
            return found

    plain, coarse, fine, again = asyncio.run(measured())
    assert plain == again == 0 and coarse > 10 * fine > 0


def test_a_journal_goes_on_after_a_line_that_was_cut_off(tmp_path):
    path = tmp_path / "journal.jsonl"
    Journal(path, "search a").add("one", {"kld": 0.25})
    with path.open("ab") as file:
        file.write(b'{"key": "two", "val')
    journal = Journal(path, "search a")
    assert journal.get("one") == {"kld": 0.25} and journal.get("two") is None
    journal.add("two", {"kld": 0.5})
    assert Journal(path, "search a").get("two") == {"kld": 0.5}
    with pytest.raises(InvalidParameter, match="another search"):
        Journal(path, "search b")
    path.write_bytes(path.read_bytes().replace(b'"two"', b"two"))
    with pytest.raises(InvalidParameter, match=r"Line 3 of .* is damaged"):
        Journal(path, "search a")


def test_two_searches_do_not_share_a_directory(tmp_path):
    with (
        work_folder(tmp_path / "out"),
        pytest.raises(InvalidParameter, match="Another search works"),
        work_folder(tmp_path / "out"),
    ):
        pass


def test_mixed_sizes_are_within_the_bound_and_promising_candidates_too():
    speeds = TypeSpeeds({"Q8_0": 0.2}, {"a": 1.0})
    budgets = mixed_budgets(Targets(max_bytes=1000, min_decode_tok_s=10), [], 100, speeds)
    assert budgets[0].max_bytes == 900 and 0.09 < (budgets[0].max_s or 0) < 0.1
    assert {one.max_s for one in mixed_budgets(Targets(max_bytes=1000), [], 100, None)} == {None}
    one = Candidate("one", Recipe("Q8_0"), 500)
    two = Candidate("two", Recipe("Q4_0"), 300)
    three = Candidate("three", Recipe("Q2_K"), 200)
    assert promising([two, one, three], Targets()) == [one, two, three]
    assert promising([one, three, two], Targets(max_bytes=400)) == [one, two, three]
    assert promising([one, two, three], Targets(max_bytes=100)) == [one, three]


class Interrupted(Exception):
    pass


def interrupt_after(n, stage):
    def tell(what, n_more, total):
        nonlocal n
        if what == stage:
            n -= 1
            if n < 0:
                raise Interrupted

    return tell


OPTIONS = (
    "--text", LICENSE, "--held-out", LICENSE, "--ctx", 64, "--calibration-chunks", 8, "--tuning-chunks", 2,
    "--held-out-chunks", 2, "--layers-together", 5, "--profile", "pi5-8gb", "--threads", 1,
    "--max-size", "300kB", "--mixtures", "q8_0,q4_0",
)  # fmt: skip


@pytest.fixture(scope="module")
def found(tmp_path_factory, quantized_here):
    """The directory of a finished search by the command, among three candidates, and what it printed."""
    out = tmp_path_factory.mktemp("found")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(proposals, "SHARES_OF_BOUND", (1.0,))
        done = run_here("optimize", TALES, "--out", out, *OPTIONS, "--max-kld", "2")
        assert done.returncode == 0, done.stderr
        yield out, done.stdout


def test_the_command_leaves_a_file_a_recipe_a_report_and_a_catalog_entry(found):
    out, told = found
    assert "mixed-" in told and "meets the targets" in told
    (entry,) = parse_catalog((out / "catalog.toml").read_text(), "catalog").values()
    path = Path(entry.variants[0].sources[0].path)
    assert path.stat().st_size == entry.variants[0].size_bytes <= 300_000
    recipe = read_recipe(path.with_suffix(".recipe.toml"))
    kinds = {tensor.name: tensor.type.name for tensor in read_header(path).tensors}
    assert all(kinds[name] == kind for name, kind in recipe.tensors.items())
    assert len(set(recipe.tensors.values())) > 1
    page, text = ((out / name).read_text() for name in ("report.html", "report.md"))
    assert (
        "<svg" in page
        and "src=" not in page
        and "predicted for pi5-8gb" in text
        and "behind 384" in text
    )
    assert "| candidate | size MB |" in text


def test_an_interrupted_search_ends_with_the_same_file(found, tmp_path):
    out, _ = found
    wanted = SearchOptions(
        (LICENSE,), (LICENSE,), Targets(max_bytes=300_000), n_ctx=64, calibration_chunks=8, tuning_chunks=2,
        held_out_chunks=2, layers_together=5, rates=rates_of("pi5-8gb"), mixtures=("Q8_0", "Q4_0"),
    )  # fmt: skip
    with pytest.raises(Interrupted):
        asyncio.run(searching.search(TALES, tmp_path, wanted, interrupt_after(5, "sensitivity")))
    again = asyncio.run(searching.search(TALES, tmp_path, wanted))
    assert again.chosen is not None and again.chosen.name.startswith("mixed-")
    name = f"tales260K-{again.chosen.name}"
    assert (tmp_path / f"{name}.gguf").read_bytes() == (out / f"{name}.gguf").read_bytes()
    assert read_recipe(tmp_path / f"{name}.recipe.toml") == read_recipe(out / f"{name}.recipe.toml")
    assert again.chosen.n_bytes == again.predicted[again.chosen.name]


def test_without_sizes_to_aim_at_only_mixtures_are_measured(tmp_path):
    options = [*OPTIONS[: OPTIONS.index("--max-size")], "--mixtures", "Q4_1"]
    done = run_here("optimize", TALES, "--out", tmp_path, *options)
    assert done.returncode == 0 and "Q4_1 meets the targets" in done.stdout, done.stderr
    assert "probe" not in (tmp_path / "work/journal.jsonl").read_text()
    done = run_here("optimize", TALES, "--out", tmp_path / "b", *options[:-1], "Q9")
    assert done.returncode == 2 and "There is no quantization 'Q9'" in done.stderr


def test_targets_that_exclude_each_other_are_said(found):
    out, _ = found
    unmet = run_here("optimize", TALES, "--out", out, *OPTIONS, "--max-kld", "0.001")
    assert unmet.returncode == 3
    assert "--max-size 0.3 MB and --max-kld 0.001 exclude each other" in unmet.stdout


def test_a_size_below_that_of_every_file_is_said_before_anything_is_probed(found, tmp_path):
    arguments = [option if option != "300kB" else "100kB" for option in OPTIONS]
    unmet = run_here("optimize", TALES, "--out", tmp_path, *arguments)
    assert unmet.returncode == 3
    assert "--max-size 0.1 MB is out of reach: the best candidate, Q4_0" in unmet.stdout
    assert "No file of this model is within the bound; the smallest has" in unmet.stdout
    assert "probe" not in (tmp_path / "work/journal.jsonl").read_text()


def test_a_full_disk_is_said_before_anything_is_measured(tmp_path, monkeypatch):
    monkeypatch.setattr(
        shutil, "disk_usage", lambda folder: shutil._ntuple_diskusage(9, 9, 150_000)
    )
    done = run_here("optimize", TALES, "--out", tmp_path / "out", *OPTIONS)
    assert done.returncode == 2 and "has 150000 free: free space" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_held_out_text_that_is_no_use_is_refused_before_anything_is_measured(tmp_path):
    (tmp_path / "short.txt").write_text("Once upon a time")
    done = run_here(
        "optimize", TALES, "--out", tmp_path / "out", *OPTIONS, "--held-out", tmp_path / "short.txt"
    )
    assert (
        done.returncode == 2
        and "short.txt has" in done.stderr
        and "one chunk takes 64" in done.stderr
    )
    assert [path.name for path in tmp_path.iterdir()] == ["short.txt"]


def test_a_model_that_llama_cpp_does_not_know_leaves_nothing_behind(tmp_path, quantized_apart):
    model = tmp_path / "unknown.gguf"
    model.write_bytes(TALES.read_bytes().replace(b"llama", b"lamas"))
    done = run_here("optimize", model, "--out", tmp_path / "new/out", *OPTIONS)
    assert done.returncode == 2 and done.stderr.count("\n") == 1, done.stderr
    assert "does not know the architecture 'lamas'" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["unknown.gguf"]


def test_flags_that_a_model_cannot_be_loaded_with_are_left_out(tmp_path):
    evaluation = EvaluationOptions(texts=(LICENSE,), n_ctx=64, max_chunks=1)
    bench = Bench(TALES, None, tmp_path, evaluation, rates_of("pi5-8gb"))
    (types,) = planned(TALES, [Recipe("Q8_0")])
    size = predicted_bytes(read_header(TALES), types)
    tried = loaded_otherwise(Candidate("Q8_0", Recipe("Q8_0"), size))
    journal = Journal(tmp_path / "journal.jsonl", "about")

    async def measured():
        return await measured_candidates(bench, tried, journal, None, lambda *told: None)

    (without_flash,) = asyncio.run(
        measured()
    )  # a head of 8 channels is no block of a quantized cache
    assert without_flash.flags == CacheFlags(flash_attention="off")
    assert (without_flash.file, without_flash.kld > 0) == ("Q8_0", True)
    assert asyncio.run(measured()) == [without_flash]
