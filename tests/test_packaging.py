"""The Debian package: what it contains, and that a purge removes what the service and the package made."""

from __future__ import annotations

import json
import platform
import re
import subprocess
import sys
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
from scripts.packaging.engine_wheel import engine_version, engine_wheel, wheel_key
from scripts.packaging.target import TARGETS, foreign_files
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


def test_a_wheel_that_was_compiled_is_kept_for_the_same_version_flags_and_processor(
    monkeypatch, tmp_path: Path
):
    monkeypatch.setattr("scripts.packaging.engine_wheel.KEPT", tmp_path)
    monkeypatch.setenv("CMAKE_ARGS", "-DGGML_LTO=ON")
    arm = TARGETS["arm64"]
    arguments = " ".join(["-DGGML_NATIVE=OFF", *arm.cmake_arguments, "-DGGML_LTO=ON"])
    kept = tmp_path / wheel_key(engine_version(), arm, arguments) / "llama_cpp_python-1-a-b-c.whl"
    kept.parent.mkdir()
    kept.touch()
    assert engine_wheel(arm, is_foreign=True) == kept
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CMAKE_ARGS")
    with pytest.raises(SystemExit, match="apt install g\\+\\+-aarch64-linux-gnu"):
        engine_wheel(arm, is_foreign=True)


def test_a_library_for_another_processor_is_found(tmp_path: Path):
    this = next(target for target in TARGETS.values() if target.processor == platform.machine())
    (other,) = set(TARGETS.values()) - {this}
    library = tmp_path / "site-packages" / "library.so"
    library.parent.mkdir()
    library.write_bytes(Path("/bin/true").read_bytes())
    (tmp_path / "site-packages" / "text.py").write_text("pass\n")
    (tmp_path / "link").symlink_to("/bin/true")
    assert [*foreign_files(tmp_path, this)] == []
    assert [*foreign_files(tmp_path, other)] == [library]


def test_wheels_for_the_c_library_of_the_package_are_taken_and_no_newer_ones(config: dict):
    (needed,) = [text for text in config["depends"] if text.startswith("libc6")]
    newest = re.findall(r"\d+\.(\d+)", needed)[0]
    target = TARGETS[config["arch"]]
    platforms = " ".join(target.platforms)
    assert f"manylinux_2_{newest}_{target.processor}" in platforms
    assert f"manylinux_2_{int(newest) + 1}_" not in platforms


def test_a_script_that_names_the_directory_of_the_build_is_found(tmp_path: Path):
    place = tmp_path / "opt/edgeagent"
    (place / "bin").mkdir(parents=True)
    (place / "bin/good").write_text("#!/opt/edgeagent/bin/python\n")
    (place / "bin/python").symlink_to(sys.executable)
    (place / "bin/bad").write_text(f"#!{place}/bin/python\n")
    (place / "bin/worse").write_text(f"#!{sys.executable}\n")
    assert set(remaining_paths(place)) == {place / "bin/bad", place / "bin/worse"}


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
