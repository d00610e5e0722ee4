"""Models that the catalog's tests share."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.catalog.mutants import Parts, take_apart


@pytest.fixture(scope="session")
def parts(stories: Path) -> Parts:
    return take_apart(stories)


@pytest.fixture
def quick_path(tmp_path: Path) -> Iterator[Path]:
    """A folder in memory where there is one: a killed process leaves there what it leaves on a disk, and
    thousands of syncs cost nothing."""
    memory = Path("/dev/shm")
    if not os.access(memory, os.W_OK):
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(prefix="edgeagent-tests-", dir=memory) as folder:
        yield Path(folder)
