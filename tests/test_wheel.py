"""An installed wheel finds what a checkout finds."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

from edgeagent.catalog.model_library import Library

ROOT = Path(__file__).resolve().parents[1]
PROGRAM = """
from pathlib import Path
from edgeagent.catalog.model_library import Library, shipped_models_dir
from edgeagent.catalog.catalog_file import load_catalog
from edgeagent.cli.shared.service_units import UNITS, unit_text, units_dir
from edgeagent.device.profile_files import load_all
import edgeagent
print(edgeagent.__file__)
print("smollm2-135m-instruct" in load_catalog(shipped_models_dir() / "catalog.toml"))
print("pi5-8gb" in load_all())
print(units_dir().relative_to(Path(edgeagent.__file__).parent), unit_text(UNITS[0], Path("/x"), 1) != "")
print([model.id for model in Library(Path("none")).installed()])
"""


def test_catalog_profiles_and_shipped_models_are_found_in_an_installed_wheel(tmp_path):
    build = [
        sys.executable,
        "-m",
        "hatchling",
        "build",
        "-t",
        "wheel",
        "-d",
        str(tmp_path / "dist"),
    ]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True, timeout=120)
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    site = tmp_path / "site"
    zipfile.ZipFile(wheel).extractall(site)
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], cwd=tmp_path, env={"PYTHONPATH": str(site)},
        check=True, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    origin, *found = done.stdout.splitlines()
    assert Path(origin).is_relative_to(site)
    shipped = [model.id for model in Library(tmp_path / "none", ROOT / "models").installed()]
    assert found == ["True", "True", "systemd True", str(shipped)]
