"""Candidates over a local Ray of two workers. Skipped where the extra `[optimize-ray]` is not installed."""

from __future__ import annotations

import asyncio
import os
from functools import cache
from pathlib import Path

import pytest

from edgeagent.catalog.gguf.header import read_header
from edgeagent.cli.optimize import rates_of
from edgeagent.errors import EngineDied
from edgeagent.optimize import ray_workers
from edgeagent.optimize.candidates import Bench, Candidate, measured_candidates
from edgeagent.optimize.evaluate import EvaluationOptions
from edgeagent.optimize.journal import Journal
from edgeagent.optimize.quantize import planned, predicted_bytes
from edgeagent.optimize.ray_workers import cluster, over_ray
from edgeagent.optimize.recipe import Recipe
from tests.commands import run_here

pytestmark = pytest.mark.process

ROOT = Path(__file__).resolve().parents[2]
TALES, LICENSE = ROOT / "tests/data/tales260K.gguf", ROOT / "LICENSE"


@cache
def wanted():
    recipes = [Recipe(name) for name in ("Q8_0", "Q5_0", "Q4_0")]
    types = planned(TALES, recipes)
    sizes = [predicted_bytes(read_header(TALES), one) for one in types]
    return [Candidate(r.file_type, r, n) for r, n in zip(recipes, sizes, strict=True)]


def bench(folder):
    evaluation = EvaluationOptions(texts=(LICENSE,), n_ctx=64, max_chunks=2)
    return Bench(TALES, None, folder, evaluation, rates_of("pi5-8gb"))


def measured(folder, journal, workers=None):
    return asyncio.run(
        measured_candidates(
            bench(folder), wanted(), Journal(journal, "about"), None, lambda *told: None, workers
        )
    )


def test_ray_that_is_not_installed_is_said(monkeypatch, tmp_path):
    monkeypatch.setitem(__import__("sys").modules, "ray", None)
    done = run_here(
        "optimize", TALES, "--text", LICENSE, "--held-out", LICENSE, "--out", tmp_path / "out", "--workers",
        "ray", "--profile", "pi5-8gb",
    )  # fmt: skip
    assert done.returncode == 2 and "edgeagent[optimize-ray]" in done.stderr
    assert not list(tmp_path.iterdir())


def test_an_address_without_ray_is_refused(tmp_path):
    done = run_here(
        "optimize", TALES, "--text", LICENSE, "--held-out", LICENSE, "--out", tmp_path / "out",
        "--ray-address", "auto", "--profile", "pi5-8gb",
    )  # fmt: skip
    assert done.returncode == 2 and "give both, or none" in done.stderr


def test_a_worker_that_dies_costs_the_repeat_of_its_candidate(tmp_path, monkeypatch):
    pytest.importorskip("ray", reason="the extra [optimize-ray] is not installed")
    local = measured(tmp_path, tmp_path / "local.jsonl")
    died = tmp_path / "died"

    def dying(shared, one):
        """Ends the process of the worker at the first try of one candidate."""
        if one.name == "Q5_0" and not died.exists():
            died.touch()
            os.kill(os.getpid(), 9)
        return asyncio.run(shared[0].measure(one, shared[1]))

    monkeypatch.setattr(ray_workers, "_measured", dying)
    with cluster(None) as ray:
        found = measured(tmp_path, tmp_path / "ray.jsonl", lambda *given: over_ray(ray, *given))
    assert died.exists() and found == local
    assert [one.name for one in found] == ["Q8_0", "Q5_0", "Q4_0"]


def test_a_worker_of_llama_cpp_that_dies_costs_the_repeat_of_its_candidate(tmp_path, monkeypatch):
    plain, tries = Bench.measure, []

    async def once(self, one, known):
        tries.append(one.name)
        if tries == ["Q8_0"]:
            raise EngineDied("ended (signal SIGKILL)")
        return await plain(self, one, known)

    monkeypatch.setattr(Bench, "measure", once)
    found = measured(tmp_path, tmp_path / "one.jsonl")
    assert tries == ["Q8_0", "Q8_0", "Q5_0", "Q4_0"] and len(found) == 3
    assert measured(tmp_path, tmp_path / "one.jsonl") == found and len(tries) == 4
