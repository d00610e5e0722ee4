"""Libraries with known faults: told by `edgeagent doctor`, and never in what is installed by default."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path

import pytest

from edgeagent.cli.shared import outdated_libraries
from edgeagent.cli.shared.outdated_libraries import (
    MINIMUM_VERSIONS,
    MinimumVersion,
    find_outdated,
    is_below,
)
from edgeagent.store.connection import LEAST_SQLITE
from tests.conftest import ROOT


@pytest.mark.parametrize(
    ("version", "least", "below"),
    [
        ("0.14.0", "0.16.0", True), ("0.16.0", "0.16.0", False), ("0.16", "0.16.0", False),
        ("3.1.10", "3.1.6", False), ("3.1.5", "3.1.6", True), ("46.0.4", "46.0.5", True),
        ("2.20.0rc1", "2.20.0", True), ("2.20.0.dev3", "2.20.0", True), ("2.20.0b2", "2.20.0", True),
        ("2.20.1rc1", "2.20.0", False), ("2.20.0.post1", "2.20.0", False),
        ("0.3.36+cu124", "0.3.36", False), ("1!1.0", "2.0", True), ("nonsense", "1.0", True),
    ],
)  # fmt: skip
def test_versions_are_compared_as_numbers_and_previews_come_before_their_release(
    version: str, least: str, below: bool
):
    assert is_below(version, least) is below


def test_nothing_installed_here_is_known_to_be_bad():
    assert find_outdated() == []


def test_the_lock_has_every_library_at_its_floor_or_above():
    lock = dict(
        line.split("==", 1)
        for line in (ROOT / "scripts" / "constraints.txt").read_text().splitlines()
        if "==" in line and not line.startswith("#")
    )
    pinned = {name.lower().replace("_", "-"): version for name, version in lock.items()}
    # A hash or a marker after the version would be compared as a part of it.
    assert all(re.fullmatch(r"[\w.+!-]+", version) for version in pinned.values())
    for floor in MINIMUM_VERSIONS:
        assert not is_below(pinned[floor.name], floor.least), floor


def test_no_declared_range_lets_a_version_below_its_floor_in():
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    leasts = dict(re.findall(r"^([\w-]+)>=([\w.]+)", "\n".join(declared), re.MULTILINE))
    for floor in MINIMUM_VERSIONS:
        if floor.name in leasts:
            assert not is_below(leasts[floor.name], floor.least), floor


def test_the_doctor_names_what_is_below_its_floor_and_the_way_out(
    edgeagent_process, tmp_path: Path
):
    site = tmp_path / "site"
    old = site / "h11-0.14.0.dist-info"
    old.mkdir(parents=True)
    (old / "METADATA").write_text("Metadata-Version: 2.1\nName: h11\nVersion: 0.14.0\n")
    done = edgeagent_process(
        "doctor", "--json", "--state-dir", tmp_path / "state", env={"PYTHONPATH": str(site)}
    )
    problems = [line for line in json.loads(done.stdout)["problems"] if "h11" in line]
    assert problems and "0.14.0" in problems[0] and "0.16.0" in problems[0]
    assert "CVE-2025-43859" in problems[0]


def test_an_sqlite_that_loses_data_is_told_too(monkeypatch):
    monkeypatch.setattr(outdated_libraries, "sqlite_version", lambda: (3, 51, 2))
    least = ".".join(map(str, LEAST_SQLITE))
    assert [line for line in find_outdated() if "3.51.2" in line and least in line]


def test_a_library_that_is_not_installed_has_no_line(monkeypatch):
    monkeypatch.setattr(
        outdated_libraries,
        "MINIMUM_VERSIONS",
        (MinimumVersion("no-such-distribution", "1", "none"),),
    )
    assert find_outdated() == []
