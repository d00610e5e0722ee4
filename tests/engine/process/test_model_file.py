"""The worker's own look at a model file: what it checks again, and what the daemon has had checked."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from edgeagent.catalog.approvals import identity_of
from edgeagent.engine.process.model_file import ModelFile
from edgeagent.errors import GGUFRefused, ModelAltered
from edgeagent.types.engine_config import EngineConfig


@pytest.fixture
def broken(stories: Path, tmp_path: Path) -> Path:
    """A file whose header is refused."""
    path = Path(shutil.copy(stories, tmp_path / "broken.gguf"))
    path.write_bytes(path.read_bytes()[:100])
    return path


def config(path: Path, **options: object) -> EngineConfig:
    return EngineConfig(**({"model_id": "m", "path": str(path)} | options))


@pytest.mark.parametrize("has_identity", [False, True])
def test_a_header_that_nobody_has_checked_is_checked(broken: Path, has_identity: bool):
    identity = identity_of(broken.stat()) if has_identity else None
    with pytest.raises(GGUFRefused):
        ModelFile(config(broken, identity=identity)).inspected()


def test_a_header_counts_as_checked_only_for_a_state_of_the_file(broken: Path):
    with pytest.raises(GGUFRefused):
        ModelFile(config(broken, is_inspected=True)).inspected()


def test_a_checked_header_is_not_read_again_and_that_of_another_file_not_believed(
    stories: Path, tmp_path: Path
):
    path = Path(shutil.copy(stories, tmp_path / "m.gguf"))
    checked = config(path, identity=identity_of(path.stat()), is_inspected=True)
    file = ModelFile(checked)
    path.rename(tmp_path / "elsewhere.gguf")  # `inspect` would find nothing here
    assert Path(file.inspected().path).samefile(tmp_path / "elsewhere.gguf")
    shutil.copy(stories, path)
    with pytest.raises(ModelAltered):
        ModelFile(checked)
