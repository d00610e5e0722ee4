"""Running `edgeagent` as a user does: a process, its output, its exit status."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

from tests.conftest import clean_environment

Edgeagent = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="session")
def edgeagent() -> Edgeagent:
    def run(*arguments: object, env: dict[str, str] | None = None, **kwargs: Any) -> Any:
        clean = clean_environment()
        done = subprocess.run(
            [sys.executable, "-m", "edgeagent", *map(str, arguments)], capture_output=True, text=True,
            timeout=60, env=clean | {"COLUMNS": "200"} | (env or {}), stdin=subprocess.DEVNULL, **kwargs,
        )  # fmt: skip
        assert "Traceback" not in done.stderr, done.stderr
        return done

    return run


def one_line(done: subprocess.CompletedProcess[str]) -> str:
    """The one line of an error that ended a command with status 2."""
    assert done.returncode == 2, (done.returncode, done.stdout, done.stderr)
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith("edgeagent: ")
    return lines[0]
