"""Models that the catalog's tests share."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.catalog.mutants import Parts, take_apart

SHARED = Path(__file__).parents[2].parent / "shared"


@pytest.fixture(scope="session")
def stories() -> Path:
    """A real llama of 260K parameters, 1.2 MB."""
    path = SHARED / "models" / "stories260K.gguf"
    if not path.exists():
        pytest.skip(f"{path} is not here")
    return path


@pytest.fixture(scope="session")
def parts(stories: Path) -> Parts:
    return take_apart(stories)
