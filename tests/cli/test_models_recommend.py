"""`edgeagent models recommend`, and a recommendation for every device we have a record of."""

from __future__ import annotations

import json
import re
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from edgeagent.catalog.catalog_file import load_catalog
from edgeagent.catalog.model_library import shipped_models_dir
from edgeagent.catalog.recommendation import Requirements, select
from edgeagent.cli.main import cli
from edgeagent.cli.models_recommend import rates_of, target_of
from edgeagent.cli.shared.measured_rates import n_threads_of
from edgeagent.cli.shared.sizes import Size
from edgeagent.device.benchmark import DeviceBenchmark
from edgeagent.device.budget import budget
from edgeagent.device.configuration import configure
from edgeagent.device.measurement import MeasuredRate, Measurement
from edgeagent.device.probe import probe
from edgeagent.device.profile import reference_device
from edgeagent.device.profile_files import load, load_all
from edgeagent.device.profile_match import match
from edgeagent.device.tensor_rates import TensorRates
from edgeagent.errors import SettingsError
from edgeagent.types.measurement import TensorRate
from tests.device.recorded import NAMES, unpack

ENTRIES = load_catalog(shipped_models_dir() / "catalog.toml").entries
PROFILES = sorted(name for name, profile in load_all().items() if profile.reference)


@pytest.mark.parametrize("tree", NAMES)
def test_every_recorded_device_is_offered_a_model_that_fits_it(tree: str, tmp_path: Path) -> None:
    device = probe(unpack(tree, tmp_path))
    profile = match(device).profile
    rates = rates_of(profile.reference or reference_device(load("container-1gb")))
    ranking = select(ENTRIES.values(), target_of(profile, device, rates), Requirements())
    assert ranking.best is not None, ranking.refusals[0].reason
    total = ranking.best.memory.total_bytes
    assert total <= budget(profile, device).n_bytes
    usable = device.memory.usable_bytes
    assert usable is None or total < usable
    assert ranking.best.is_fast_enough


@pytest.mark.parametrize("name", PROFILES)
def test_every_profile_is_advised_on_any_machine_within_its_own_budget(
    name: str, tmp_path: Path
) -> None:
    profile = load(name)
    body = json.loads(_run("--profile", name, "--json", state=tmp_path))
    best = body["choices"][0]
    assert body["profile"] == name
    assert best["total_bytes"] <= body["budget_bytes"]
    assert body["budget_bytes"] < budget(profile, reference_device(profile)).n_bytes
    assert best["decode_tokens_per_s"] >= 5


def test_a_container_of_1_gb_is_offered_what_fits_1_gb(tmp_path: Path) -> None:
    body = json.loads(_run("--profile", "container-1gb", "--json", state=tmp_path))
    assert body["choices"]
    assert all(choice["total_bytes"] < 2**30 for choice in body["choices"])
    refused = {refusal["model_id"] for refusal in body["refusals"]}
    assert {"qwen3-1.7b", "llama-3.2-3b-instruct", "mistral-7b-instruct-v0.3"} <= refused


def test_room_for_speech_leaves_less_for_the_model() -> None:
    profile = load("pi5-8gb")
    machine = reference_device(profile)
    plain, less = (
        target_of(profile, machine, rates_of(machine), with_speech=speech)
        for speech in (False, True)
    )
    assert less.budget_bytes == plain.budget_bytes - 260_000_000


def test_the_table_names_the_model_and_the_nearest_refusals(tmp_path: Path) -> None:
    text = _run("--profile", "container-1gb", "--budget", "600MB", state=tmp_path)
    assert "600 MB for a model" in text
    assert "edgeagent models install" in text
    assert "MB are missing" in text
    assert "its task is speech" not in text
    assert "its task is speech" in _run("--profile", "pi5-8gb", "--all", state=tmp_path)


def test_where_nothing_fits_that_is_said_with_the_numbers(tmp_path: Path) -> None:
    text = _run("--profile", "container-1gb", "--budget", "64MiB", state=tmp_path)
    assert "Nothing fits." in text
    assert "the budget is 67 MB" in text


@pytest.mark.parametrize(
    ("profile", "message"),
    [("pi9", r"'pi9' is not one of the \d+"), ("generic", "has no reference machine")],
)
def test_a_profile_that_cannot_be_advised_on_is_an_error(
    profile: str, message: str, tmp_path: Path
) -> None:
    with pytest.raises(SettingsError, match=message):
        _run("--profile", profile, state=tmp_path)


def test_rates_that_were_measured_before_are_used_and_not_measured_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = Measurement(
        measured_utc_ms=1_790_000_000_000,
        wall_s=1.0,
        buffer_bytes=1,
        memory_gb_per_s=(MeasuredRate(1, 3.5),),
        gemm_gflop_per_s=(MeasuredRate(1, 17.0),),
    )
    device = configure(flags={"state_dir": tmp_path}).device
    measuring = DeviceBenchmark(device, tmp_path)
    measuring._store.save(measuring._key, found)
    n_threads = n_threads_of(configure(flags={"state_dir": tmp_path}))
    rates = {"Q4_0": TensorRate(9e9, 30e9, True, 12e9), "F16": TensorRate(3e9, 20e9, False, 4e9)}
    measuring._tensors.save(TensorRates(1, n_threads, rates))
    monkeypatch.setattr("edgeagent.cli.models_recommend.measure", None)
    monkeypatch.setattr("edgeagent.device.benchmark.measure_tensors", None)
    text = _run(state=tmp_path)
    assert "3.5 GB/s, 17 GFLOP/s (measured on 2026-09-21)" in text
    assert re.search(
        r"Q4_0 +4\.5 +30 +12\.0 +9\.0 +own kernels\n.*F16 +16\.0 +20 +4\.0 +3\.0", text
    )
    body = json.loads(_run("--json", state=tmp_path))
    f16 = {"decode": 3e9, "few": 4e9, "prefill": 20e9, "is_repacked": False}
    assert body["tensor_types"]["F16"] == f16


def test_a_profile_of_the_user_is_advised_on(tmp_path: Path) -> None:
    (tmp_path / "profiles").mkdir()
    (tmp_path / "profiles" / "my-board.toml").write_text(
        'name = "my-board"\nversion = 1\nbased_on = "pi5-8gb"\n'
    )
    assert "Profile my-board: " in _run("--profile", "my-board", state=tmp_path)


@pytest.mark.parametrize(
    ("text", "n_bytes"),
    [("600MB", 600_000_000), ("1.5GiB", 1_610_612_736), ("700000000", 700_000_000),
     ("2G", 2 << 30), (" 1 gb ", 10**9)],
)  # fmt: skip
def test_sizes_are_read_as_people_write_them(text: str, n_bytes: int) -> None:
    assert Size().convert(text, None, None) == n_bytes


@pytest.mark.parametrize(
    ("text", "message"),
    [("lots", "is not a size"), ("-5MB", "is not a size"), ("5XB", "has the unit 'XB'"),
     ("0MB", "must be 1 to"), ("9999999999GB", "must be 1 to"), ("1e3", "is not a size"),
     ("600", "as 600MB")],
)  # fmt: skip
def test_what_is_no_size_is_refused_with_the_way_out(text: str, message: str) -> None:
    with pytest.raises(click.BadParameter, match=message):
        Size().convert(text, None, None)


def _run(*arguments: str, state: Path) -> str:
    command = ["models", "recommend", *arguments, "--state-dir", str(state)]
    result = CliRunner().invoke(cli, command, standalone_mode=False)
    if result.exception is not None:
        raise result.exception
    return result.output
