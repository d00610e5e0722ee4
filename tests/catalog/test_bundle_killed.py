"""The install of a bundle is killed at each of its steps; each model is the old or the new one."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

from edgeagent.catalog.bundles.install_state import BundleFolder
from edgeagent.catalog.catalog_file import load_catalog
from edgeagent.catalog.model_library import STAGING, Library
from tests.catalog.bundles.homes import Home, take

# Forks a child for each step, which counts every call that changes the disk, and kills itself before
# the one that is asked for: what is there after a call is what is there before the next. Prints how
# each child ended.
SCRIPT = """
import json, os, shutil, signal, sys
from pathlib import Path
import edgeagent.catalog.bundles.installer as module
import edgeagent.durable as durable
import edgeagent.catalog.install.installation as install
from edgeagent.catalog.model_library import Library
from edgeagent.catalog.bundles.signing import load_trust

bundle, key, before, runs, at = *map(Path, sys.argv[1:5]), 0

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
                        (shutil, "rmtree"), (install, "_sync_file"), (install, "_sync_folder"),
                        (module, "sync_file"), (module, "sync_folder"), (durable, "sync_file"),
                        (durable, "sync_folder")):
        setattr(owner, name, counted(getattr(owner, name)))
    module.install_bundle(bundle, Library(models, Path("absent")), load_trust(Path(), key),
                          check_profile=lambda text, place: "shed", progress=step)

ends = []
while True:
    models = runs / str(at)
    shutil.copytree(before, models)
    pid = os.fork()
    if pid == 0:
        child(models, at)
        os._exit(0)
    ends.append(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
    if ends[-1] != -signal.SIGKILL:
        break
    at += 1
print(json.dumps(ends))
"""


def test_killed_at_any_step_every_model_is_the_old_or_the_new_one(
    stories: Path, quick_path: Path
) -> None:
    home = Home.make(quick_path / "home", stories)
    first = home.bundle(quick_path / "1.eab", 1)
    home.change("ant", stories, 8)
    home.change("bee", stories, 9)
    second = home.bundle(quick_path / "2.eab", 2)
    before = quick_path / "before"
    take(first, Library(before, quick_path / "absent"), home.trust)
    runs = quick_path / "runs"
    runs.mkdir()
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, second, home.folder / "keys" / "home.pub", before, runs],
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    ends = json.loads(done.stdout)
    assert ends[-1] == 0, done.stderr
    assert len(ends) >= 60

    new = {model.id: model.sha256 for model in home.library.installed()}
    old = {model.id: model.sha256 for model in Library(before, quick_path / "x").installed()}
    assert not set(new.values()) & set(old.values())
    (quick_path / "shipped.toml").write_text("")
    seen = []
    for at in range(len(ends)):
        library = Library(runs / str(at), quick_path / "absent")
        found = {model.id: model.sha256 for model in library.installed()}
        assert set(found) == set(old)
        assert all(found[name] in (old[name], new[name]) for name in found)
        # The record names files that are whole, and what a daemon reads at start can be read.
        assert all(library.verify(name) is not None for name in found)
        catalog = load_catalog(quick_path / "shipped.toml", library.models_dir / "catalog.toml")
        assert catalog.entries == home.catalog.entries
        last = BundleFolder(library.models_dir).last("garden")
        assert last is not None
        # The counter moves last: what it says is installed is installed.
        assert last.version == 1 or found == new
        seen.append((found == new, last.version))
        # And the same bundle finishes what this one began, leaving nothing behind.
        take(second, library, home.trust)
        assert {model.id: model.sha256 for model in library.installed()} == new
        assert not list((library.models_dir / STAGING).glob("*@*"))
        wheels = library.models_dir / ".bundles" / "wheels" / "garden"
        assert [path.name for path in wheels.iterdir()] == ["2"]
        shutil.rmtree(library.models_dir)
    assert seen == sorted(seen)
    assert {(False, 1), (True, 1), (True, 2)} == set(seen)
