"""Install is killed at each of its steps; whatever was there before, or the new model, serves."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from edgeagent.catalog.install import install
from edgeagent.catalog.library import STAGING, Library
from edgeagent.catalog.manifest import Catalog, parse_catalog
from edgeagent.errors import ModelNotFound

# Counts every system call of the install that changes the disk, besides its own progress, and
# kills the process at the one that is asked for.
SCRIPT = """
import os, shutil, signal, sys
from pathlib import Path
import edgeagent.catalog.installation as module
from edgeagent.catalog.install import install
from edgeagent.catalog.library import Library
from edgeagent.catalog.manifest import load_catalog

models, catalog, at = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
n = 0

def step(*_):
    global n
    if n == at:
        os.kill(os.getpid(), signal.SIGKILL)
    n += 1

def counted(function):
    def call(*args, **kwargs):
        step()
        result = function(*args, **kwargs)
        step()
        return result
    return call

for owner, name in ((Path, "replace"), (Path, "mkdir"), (Path, "unlink"), (Path, "write_text"),
                    (shutil, "rmtree"), (module, "_sync_file"), (module, "_sync_folder")):
    setattr(owner, name, counted(getattr(owner, name)))
install("tiny", Library(models, Path("absent")), load_catalog(catalog), progress=step)
print(n)
"""


def catalog_text(path: Path) -> str:
    return f"""
[models.tiny]
name = "Tiny"
family = "llama"
n_params = 292_800
task = "chat"
licence = "MIT"
[[models.tiny.variants]]
quant = "F32"
file = "tiny.gguf"
sources = [{{ kind = "path", path = "{path}" }}]
"""


def run_until(step: int, models: Path, catalog: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", SCRIPT, models, catalog, str(step)],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


@pytest.fixture
def new(stories: Path, tmp_path: Path) -> Path:
    """Another good model: the last weight differs."""
    data = bytearray(stories.read_bytes())
    data[-1] ^= 1
    path = tmp_path / "new.gguf"
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("has_old", [True, False], ids=["over an old model", "for the first time"])
def test_killed_at_any_step_the_old_or_the_new_model_serves(
    stories: Path, new: Path, tmp_path: Path, has_old: bool
) -> None:
    catalog = tmp_path / "catalog.toml"
    catalog.write_text(catalog_text(new))
    before = tmp_path / "before"
    before.mkdir()
    old_sha256 = None
    if has_old:
        old_catalog = Catalog(parse_catalog(catalog_text(stories), "test"))
        old_sha256 = install("tiny", Library(before, tmp_path / "absent"), old_catalog).sha256
    found = []
    for step in range(200):
        models = tmp_path / f"models-{step}"
        shutil.copytree(before, models)
        done = run_until(step, models, catalog)
        library = Library(models, tmp_path / "absent")
        if done.returncode == 0:
            break
        assert done.returncode == -signal.SIGKILL, done.stderr
        try:
            found.append(library.resolve("tiny").sha256)
            # The record names a file that is whole: every byte is read.
            assert library.verify("tiny") is not None
        except ModelNotFound:
            found.append(None)
        # And the next install finishes what this one began, leaving nothing behind.
        again = install("tiny", library, Catalog(parse_catalog(catalog_text(new), "test")))
        assert len(list((models / "tiny").rglob("*.gguf"))) == 1
        assert not list((models / STAGING).glob("*@*"))
        shutil.rmtree(models)
    assert len(found) >= 15
    turn = found.index(again.sha256)
    assert set(found[:turn]) == {old_sha256}
    assert set(found[turn:]) == {again.sha256}
