"""A lock that one holder at a time has, and that a failure gives back."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgeagent.catalog.exclusive_lock import exclusive_lock
from edgeagent.errors import InvalidParameter

BUSY = InvalidParameter("busy")


def test_the_second_is_refused_and_after_the_first_it_is_free(tmp_path: Path) -> None:
    path = tmp_path / "new" / "lock"
    with pytest.raises(KeyError), exclusive_lock(path, BUSY):
        with pytest.raises(InvalidParameter, match="busy"), exclusive_lock(path, BUSY):
            raise AssertionError("both have it")
        raise KeyError
    with exclusive_lock(path, BUSY):
        pass
