"""The Debian package: what it contains, and that a purge removes what the service and the package made."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest

from edgeagent.cli.service import TIMER_STAMP
from edgeagent.cli.shared.service_units import (
    ENABLED,
    KEY_FILE,
    PRIVATE_STATE_DIR,
    STATE_DIR,
    UNITS,
)
from edgeagent.settings.setting_names import VARIABLES
from edgeagent.settings.settings_sources import SYSTEM_CONFIG
from scripts.packaging.configuration import HERE, SCRIPTS, SETTINGS, nfpm_configuration
from scripts.packaging.container import read_image
from scripts.packaging.tree import PLACE, has_kernels, remaining_paths


@pytest.fixture(scope="module", params=["amd64", "arm64"])
def config(request) -> dict:
    made = nfpm_configuration("1.2.3", request.param, (3, 11), Path("/stage"))
    assert made["arch"] == request.param
    return json.loads(json.dumps(made))


def test_everything_that_is_packed_is_there(config: dict):
    for item in config["contents"]:
        assert item["src"].startswith(("/stage", str(PLACE))) or Path(item["src"]).is_file(), item
    assert all(Path(path).is_file() for path in config["scripts"].values())
    packed = {Path(item["dst"]).name for item in config["contents"] if "systemd" in item["dst"]}
    assert packed == set(UNITS)


def test_settings_of_the_administrator_are_kept_at_an_upgrade(config: dict):
    (settings,) = [item for item in config["contents"] if item["dst"] == SETTINGS]
    assert settings["type"] == "config|noreplace"
    assert Path(SETTINGS) == SYSTEM_CONFIG


def test_the_python_of_the_environment_is_needed_and_no_other(config: dict):
    assert {"python3 (>= 3.11)", "python3 (<< 3.12)"} <= set(config["depends"])


@pytest.mark.parametrize("name", SCRIPTS)
def test_maintainer_scripts_are_valid_and_stop_at_errors(name: str):
    text = (HERE / name).read_text()
    assert text.startswith("#!/bin/sh\n") and "\nset -e\n" in text
    done = subprocess.run(["sh", "-n", str(HERE / name)], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_units_that_start_others_are_enabled_and_all_are_forgotten_at_the_end():
    (enabled,) = re.findall(r'(?m)^enabled="(.*)"$', (HERE / "postinst").read_text())
    assert set(enabled.split()) == set(ENABLED)
    (units,) = re.findall(r'(?m)^units="(.*)"$', (HERE / "postrm").read_text())
    assert set(units.split()) == set(UNITS)


def test_a_purge_removes_what_uninstall_with_purge_removes():
    purge = (HERE / "postrm").read_text().partition('[ "$1" = purge ]; then')[2]
    removed = purge.split()
    paths = (
        PRIVATE_STATE_DIR,
        STATE_DIR,
        KEY_FILE.parent,
        TIMER_STAMP,
        PLACE,
    )
    for path in paths:
        assert str(path) in {word.rstrip(";") for word in removed}, path


def test_data_goes_at_a_purge_only():
    before = (HERE / "postrm").read_text().partition('\nif [ "$1" = purge ]; then')[0]
    for text in (before, (HERE / "prerm").read_text(), (HERE / "postinst").read_text()):
        code = "\n".join(line for line in text.splitlines() if not line.startswith("#"))
        assert "/var/lib" not in code and "/etc/edgeagent" not in code


def test_an_engine_without_kernels_is_not_packed():
    assert has_kernels("CPU : SSE3 = 1 | AVX2 = 1 | LLAMAFILE = 1 | OPENMP = 1 | ")
    assert not has_kernels("\n")


def test_a_script_that_names_the_directory_of_the_build_is_found(tmp_path: Path):
    place = tmp_path / "opt/edgeagent"
    (place / "bin").mkdir(parents=True)
    (place / "bin/good").write_text("#!/opt/edgeagent/bin/python\n")
    (place / "bin/bad").write_text(f"#!{place}/bin/python\n")
    assert remaining_paths(place) == [place / "bin/bad"]


def test_a_container_has_a_user_volumes_for_data_and_key_and_a_health_check():
    image = read_image((HERE / "Containerfile").read_text())
    user, _, group = image.user.partition(":")
    assert int(user) > 0 and int(group) > 0
    state, key = (
        Path(image.environment[name])
        for name in ("EDGEAGENT_STATE_DIR", "EDGEAGENT_STORE__KEY_FILE")
    )
    assert image.volumes == [str(state), str(key.parent)] and not key.is_relative_to(state)
    assert set(image.environment) <= {"EDGEAGENT_STATE_DIR", *VARIABLES}
    assert image.command == ["/opt/edgeagent/bin/edgeagent", "serve"]
    assert image.health[0] == "/opt/edgeagent/bin/python" and "/health" in image.health[-1]
    compile(image.health[-1], "health check", "exec")
