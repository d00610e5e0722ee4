"""What is remembered of model files while the daemon runs."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import msgspec
import pytest

from edgeagent.catalog.gguf.inspection import InspectionResult, inspect_apart
from edgeagent.catalog.gguf.model_facts_reader import inspect
from edgeagent.worker import spawn
from tests.conftest import write_stories


def test_another_file_of_the_same_size_and_time_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def run_here(module: str, path: str, **options: Any) -> subprocess.CompletedProcess[bytes]:
        found = InspectionResult(facts=inspect(Path(path)))
        return subprocess.CompletedProcess([module], 0, msgspec.json.encode(found))

    monkeypatch.setattr(spawn, "run", run_here)
    path, other = tmp_path / "tale.gguf", tmp_path / "other.gguf"
    write_stories(path, n_ctx=128)
    write_stories(other, n_ctx=256)
    shutil.copystat(path, other)
    assert inspect_apart(path).n_ctx_train == 128
    os.replace(other, path)  # noqa: PTH105
    assert inspect_apart(path).n_ctx_train == 256
