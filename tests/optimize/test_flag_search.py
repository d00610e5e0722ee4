"""Engine flags: what is tried, what replaces the best so far, what is kept for the next load."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

import msgspec
import pytest

from edgeagent.catalog.installed import InstalledModels
from edgeagent.device.benchmark import DeviceBenchmark
from edgeagent.device.configuration import configure
from edgeagent.device.engine_flags_store import EngineFlagsStore
from edgeagent.optimize import flag_search
from edgeagent.optimize.flag_search import Trial, better, choices, fastest_flags
from edgeagent.pool.placement import ModelPlacer, with_flags
from edgeagent.types.engine_config import EngineConfig
from edgeagent.types.engine_flags import CacheFlags, EngineFlags
from tests.commands import run_here
from tests.conftest import approve_dropped

TALES = Path(__file__).resolve().parents[2] / "tests/data/tales260K.gguf"


@pytest.mark.parametrize(("n_cores", "threads"), [(1, [1]), (2, [1, 2]), (6, [1, 2, 3, 4, 6])])
def test_no_more_threads_are_tried_than_there_are_cores(n_cores, threads):
    assert dict(choices(n_cores))["n_threads"] == threads


def test_a_gain_within_noise_replaces_nothing():
    assert better(0.9, 1.0) and not better(0.98, 1.0)


def search(monkeypatch, seconds_of, kld=0.0, texts=()):
    async def timed(model, flags):
        return Trial(flags, seconds_of(flags), 0.0, False)

    async def divergence(*_):
        return kld

    monkeypatch.setattr(flag_search, "_timed", timed)
    monkeypatch.setattr(flag_search, "_divergence", divergence)
    return asyncio.run(fastest_flags(TALES, 4, texts=texts))


def seconds(flags):
    """Two threads and no repacking are fastest, a coarse cache is faster still."""
    slow = 1 + abs(flags.n_threads - 2) + flags.repack + (flags.kv_type == "f16")
    return float(slow + (flags.n_batch != 256))


def test_each_flag_is_searched_beside_the_best_so_far(monkeypatch):
    trials = search(monkeypatch, seconds)
    best = [trial for trial in trials if trial.is_kept][-1]
    assert best.flags == EngineFlags(n_threads=2, n_batch=256, repack=False)
    assert trials[0].flags == EngineFlags(n_threads=4)


@pytest.mark.parametrize(("kld", "kv_type"), [(0.001, "q8_0"), (0.5, "f16")])
def test_a_coarser_cache_is_kept_within_the_bound_only(monkeypatch, kld, kv_type):
    trials = search(monkeypatch, seconds, kld, [TALES])
    assert [trial for trial in trials if trial.is_kept][-1].flags.kv_type == kv_type


def test_what_somebody_has_set_wins_over_what_was_measured():
    config = EngineConfig(model_id="m", path="m", n_threads=8)
    flags = EngineFlags(n_threads=2, n_batch=128, repack=False)
    found = with_flags(config, flags, frozenset({"engine.n_threads"}))
    assert (found.n_threads, found.n_batch, found.repack) == (8, 128, False)
    assert with_flags(config, None, frozenset()) is config
    cache = CacheFlags(kv_type="q8_0", flash_attention="on")
    of_catalog = with_flags(config, cache, frozenset({"engine.flash_attention"}))
    assert of_catalog == msgspec.structs.replace(config, kv_type="q8_0")


def test_flags_are_those_of_one_device_and_one_state_of_a_file(tmp_path):
    model = tmp_path / "a.gguf"
    model.write_bytes(b"one")
    store = EngineFlagsStore(tmp_path / "state", "this device")
    assert store.load(model) is None
    store.save(model, EngineFlags(n_threads=3))
    assert store.load(model) == EngineFlags(n_threads=3)
    assert EngineFlagsStore(tmp_path / "state", "another").load(model) is None
    model.write_bytes(b"another")
    assert store.load(model) is None
    for content in (b"{", b'{"\xff": {}}'):
        (tmp_path / "state/engine_flags.json").write_bytes(content)
        assert store.load(model) is None


@pytest.mark.process
def test_the_command_keeps_what_it_measured(tmp_path, monkeypatch):
    """The real thing, with one choice of each flag."""
    models = tmp_path / "models"
    models.mkdir()
    shutil.copy(TALES, models / "tales.gguf")
    plan = [("n_threads", [1]), ("repack", [True, False]), ("kv_type", ["f16", "q8_0"])]
    monkeypatch.setattr(flag_search, "choices", lambda n_cores: plan)
    monkeypatch.setattr(flag_search, "N_RUNS", 1)
    done = run_here(
        "tune", "tales", "--models-dir", models, "--state-dir", tmp_path / "state", "--max-threads", 1,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "Kept for the next load of tales" in done.stdout
    assert (tmp_path / "state/engine_flags.json").exists()


def test_the_next_load_of_a_model_uses_the_flags_of_its_file(tmp_path):
    models, state = tmp_path / "models", tmp_path / "state"
    models.mkdir()
    path = Path(shutil.copy(TALES, models / "tales.gguf"))
    approve_dropped(models, state)
    (tmp_path / "own.toml").write_text("[engine]\nn_threads = 3\n")
    where = {"models_dir": models, "state_dir": state}
    here = configure(flags=where, config=tmp_path / "own.toml")
    benchmark = DeviceBenchmark(here.device, here.settings.state_dir)
    benchmark.engine_flags.save(path, EngineFlags(n_threads=1, n_batch=96, repack=False))
    placer = ModelPlacer.of(here, InstalledModels.of(here.resolved))
    config = asyncio.run(placer.place("tales")).config
    assert isinstance(config, EngineConfig)
    assert (config.n_threads, config.n_batch, config.repack) == (3, 96, False)
