"""Install is killed at each of its steps; whatever was there before, or the new model, serves."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from edgeagent.catalog.catalog_file import Catalog, parse_catalog
from edgeagent.catalog.install.installer import install
from edgeagent.catalog.model_library import STAGING, Library
from edgeagent.errors import ModelNotFound

# Forks a child for each step, which counts every system call of the install that changes the disk,
# besides its own progress, and kills itself before the one that is asked for: what is there after a call
# is what is there before the next. Prints how each child ended.
SCRIPT = """
import json, os, shutil, signal, sys
from pathlib import Path
import edgeagent.catalog.install.installation as module
from edgeagent.catalog.install.installer import install
from edgeagent.catalog.model_library import Library
from edgeagent.catalog.catalog_file import load_catalog

before, runs, catalog = map(Path, sys.argv[1:4])

def child(models, at):
    n = 0
    def step(*_):
        nonlocal n
        if n == at:
            os.kill(os.getpid(), signal.SIGKILL)
        n += 1
    def counted(function):
        def call(*args, **kwargs):
            step()
            return function(*args, **kwargs)
        return call
    for owner, name in ((Path, "replace"), (Path, "mkdir"), (Path, "unlink"), (Path, "write_text"),
                        (shutil, "rmtree"), (module, "_sync_file"), (module, "_sync_folder")):
        setattr(owner, name, counted(getattr(owner, name)))
    install("tiny", Library(models, Path("absent")), load_catalog(catalog), progress=step)

ends = []
while True:
    models = runs / str(len(ends))
    shutil.copytree(before, models)
    pid = os.fork()
    if pid == 0:
        child(models, len(ends))
        os._exit(0)
    ends.append(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
    if ends[-1] != -signal.SIGKILL:
        break
print(json.dumps(ends))
"""


def catalog_text(path: Path) -> str:
    return f"""
[models.tiny]
name = "Tiny"
family = "llama"
n_params = 260_032
task = "chat"
licence = "MIT"
[[models.tiny.variants]]
quant = "F32"
file = "tiny.gguf"
sources = [{{ kind = "path", path = "{path}" }}]
"""


@pytest.fixture
def new(stories: Path, quick_path: Path) -> Path:
    """Another good model: the last weight differs."""
    data = bytearray(stories.read_bytes())
    data[-1] ^= 1
    path = quick_path / "new.gguf"
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("has_old", [True, False], ids=["over an old model", "for the first time"])
def test_killed_at_any_step_the_old_or_the_new_model_serves(
    stories: Path, new: Path, quick_path: Path, has_old: bool
) -> None:
    catalog = quick_path / "catalog.toml"
    catalog.write_text(catalog_text(new))
    before = quick_path / "before"
    before.mkdir()
    old_sha256 = None
    if has_old:
        old_catalog = Catalog(parse_catalog(catalog_text(stories), "test"))
        old_sha256 = install("tiny", Library(before, quick_path / "absent"), old_catalog).sha256
    runs = quick_path / "runs"
    runs.mkdir()
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, before, runs, catalog],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    ends = json.loads(done.stdout)
    assert ends[-1] == 0, done.stderr
    found = []
    for step in range(len(ends) - 1):
        models = runs / str(step)
        library = Library(models, quick_path / "absent")
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
