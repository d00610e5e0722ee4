"""Fixtures for the device floor."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.device.recorded import unpack


@pytest.fixture
def tree_of(tmp_path: Path) -> Callable[[str], Path]:
    """Unpack a recorded tree by name and return its root."""

    def unpacked(name: str) -> Path:
        return unpack(name, tmp_path)

    return unpacked
