"""Fixtures for the device floor."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

from tests.device.recorded import unpack


@pytest.fixture(scope="session")
def tree_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The root of a recorded tree by name, unpacked once and shared: only to be read."""
    folder = tmp_path_factory.mktemp("trees")
    return cache(lambda name: unpack(name, folder))


@pytest.fixture
def own_tree_of(tmp_path: Path) -> Callable[[str], Path]:
    """The root of a recorded tree of the test's own, which it may change."""
    return lambda name: unpack(name, tmp_path)
