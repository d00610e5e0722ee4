"""What `edgeagent doctor` chooses to measure."""

from __future__ import annotations

import shutil
from pathlib import Path

from edgeagent.cli.doctor import model_to_measure
from edgeagent.cli.options import configured
from tests.conftest import MINILM


def test_a_model_that_makes_embeddings_is_not_measured_as_one_that_generates(
    minilm_dir: Path, stories: Path, tmp_path: Path
):
    models = tmp_path / "models"
    shutil.copytree(minilm_dir / MINILM, models / MINILM)
    found = configured(None, models_dir=models, state_dir=tmp_path / "state")
    assert model_to_measure(found) is None
    shutil.copy(stories, models / "stories260k.gguf")
    assert model_to_measure(found) == models / "stories260k.gguf"
