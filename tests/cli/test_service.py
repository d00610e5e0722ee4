"""`edgeagent service`: units in a system image, and mistakes. A real systemd: scripts/faults/service.py."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from edgeagent.cli import service
from edgeagent.cli.main import cli
from edgeagent.cli.shared.service_units import ENABLED, UNITS, this_command, unit_text
from edgeagent.errors import ServiceFailed

pytestmark = pytest.mark.process
needs_systemctl = pytest.mark.skipif(
    shutil.which("systemctl") is None or os.geteuid() != 0, reason="systemctl --root, as root"
)
needs_analyze = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="systemd-analyze"
)
# The bound of the project is 1.0; a unit without a sandbox has 9.2.
MOST_EXPOSED = {
    "edgeagent.service": 0.5,
    "edgeagent-maintenance.service": 0.5,
    "edgeagent-key.service": 1.0,
}


def run(*arguments: str) -> Result:
    return CliRunner().invoke(cli, ["service", *arguments])


def test_links_of_an_image_lead_to_nothing_outside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(service, "_require_root", lambda: None)
    image, outside = tmp_path / "image", tmp_path / "outside"
    (image / "etc").mkdir(parents=True)
    (image / "var").symlink_to(outside)
    kept = outside / "lib" / "edgeagent" / "store"
    kept.mkdir(parents=True)
    done = run("uninstall", "--purge", "--root", str(image), "--yes")
    assert isinstance(done.exception, ServiceFailed) and "leads to" in done.exception.message
    assert kept.is_dir()
    (image / "etc" / "systemd").symlink_to(outside)
    done = run("install", "--root", str(image), "--yes")
    assert isinstance(done.exception, ServiceFailed) and "relative" in done.exception.message
    assert [path.name for path in outside.iterdir()] == ["lib"]


@needs_systemctl
def test_an_image_gets_the_units_and_gives_them_back(tmp_path: Path):
    image = ["--root", str(tmp_path), "--yes"]
    units = tmp_path / "etc" / "systemd" / "system"
    done = run("install", *image, "--port", "9000")
    assert done.exit_code == 0, done.output
    assert {name for name in UNITS if (units / name).is_file()} == set(UNITS)
    assert {link.name for link in units.glob("*.wants/*")} == set(ENABLED)
    assert "ListenStream=127.0.0.1:9000\n" in (units / "edgeagent.socket").read_text()
    assert not (tmp_path / "etc" / "edgeagent").exists(), "an image holds no key"
    assert "unchanged" in run("install", *image, "--port", "9000").output
    assert run("uninstall", *image).exit_code == 0
    assert not list(units.rglob("edgeagent*"))
    assert "not installed" in run("uninstall", *image).output


@needs_systemctl
def test_a_dry_run_shows_each_step_and_does_none(tmp_path: Path):
    done = run("install", "--root", str(tmp_path), "--dry-run")
    assert all(f"system/{name}" in done.output for name in UNITS)
    assert "enable edgeagent.socket" in done.output
    assert not list(tmp_path.iterdir())


def test_without_systemd_there_is_a_way_out(monkeypatch, tmp_path: Path):
    monkeypatch.setattr(service, "RUNS_SYSTEMD", tmp_path / "none")
    for command in (["install"], ["status"], ["uninstall"], ["run", "--", "doctor"]):
        done = run(*command)
        assert isinstance(done.exception, ServiceFailed)
        assert "edgeagent serve" in done.exception.message


def test_a_device_is_no_system_image():
    for command in ("install", "uninstall"):
        done = run(command, "--root", "/dev/null", "--dry-run")
        assert isinstance(done.exception, ServiceFailed) and "--root" in done.exception.message


@pytest.mark.parametrize(
    "command",
    ["edgeagent", "/opt/a b/edgeagent", "/opt/%i/edgeagent", "/opt/$HOME/edgeagent", "/a;b"],
)
@needs_systemctl
def test_a_command_that_a_unit_would_misread_is_refused(tmp_path: Path, command: str):
    done = run("install", "--root", str(tmp_path), "--yes", "--command", command)
    assert isinstance(done.exception, ServiceFailed)
    assert not list(tmp_path.iterdir())


def test_an_installation_that_the_sandbox_hides_is_refused(monkeypatch, tmp_path: Path):
    hidden = tmp_path / "hidden"
    (hidden / "bin").mkdir(parents=True)
    (hidden / "bin" / "edgeagent").touch()
    monkeypatch.setattr("edgeagent.cli.shared.service_units._HIDDEN", (str(hidden),))
    monkeypatch.setattr("sys.prefix", str(hidden))
    with pytest.raises(ServiceFailed, match="services cannot read"):
        this_command()
    (hidden / "bin" / "edgeagent").unlink()
    with pytest.raises(ServiceFailed, match="pip"):
        this_command()


@needs_analyze
def test_the_units_are_valid_and_sandboxed(tmp_path: Path):
    command = tmp_path / "edgeagent"
    command.write_text("#!/bin/sh\n")
    command.chmod(0o755)
    paths = []
    for name in UNITS:
        paths.append(tmp_path / name)
        paths[-1].write_text(unit_text(name, command, 8484))
    done = subprocess.run(
        ["systemd-analyze", "verify", *map(str, paths)], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0 and not done.stderr, done.stderr
    for name, most in MOST_EXPOSED.items():
        done = subprocess.run(
            ["systemd-analyze", "security", "--offline=true", f"--threshold={int(most * 10)}",
             str(tmp_path / name)],
            capture_output=True, text=True, timeout=60,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout.splitlines()[-1]


def test_the_key_is_made_once_and_never_for_a_store_that_lost_its_own(monkeypatch, tmp_path: Path):
    key, state = tmp_path / "etc" / "store.key", tmp_path / "state"
    monkeypatch.setattr(service, "KEY_FILE", key)
    monkeypatch.setattr(service, "STATE_DIR", state)
    monkeypatch.setattr(service, "PRIVATE_STATE_DIR", tmp_path / "private")
    monkeypatch.setattr(service, "_require_root", lambda: None)
    assert run("make-key").exit_code == 0
    made = key.read_text()
    assert key.stat().st_mode & 0o777 == 0o600
    assert "kept" in run("make-key").output and key.read_text() == made
    key.unlink()
    (state / "store").mkdir(parents=True)
    (state / "store" / "seal.json").touch()
    done = run("make-key")
    assert isinstance(done.exception, ServiceFailed) and not key.exists()
