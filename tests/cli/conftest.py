"""Running `edgeagent` as a user does: its output, its exit status."""

from __future__ import annotations

import subprocess
from typing import Any

import pytest

from tests.commands import Command, run_apart, run_here


@pytest.fixture(scope="session")
def edgeagent() -> Command:
    """`edgeagent` in this process."""

    def run(*arguments: object, env: dict[str, str] | None = None) -> Any:
        done = run_here(*arguments, env=env)
        assert "Traceback" not in done.stderr, done.stderr
        return done

    return run


@pytest.fixture(scope="session")
def edgeagent_process() -> Command:
    """`edgeagent` in a process of its own."""

    def run(*arguments: object, env: dict[str, str] | None = None) -> Any:
        done = run_apart(*arguments, env=env)
        assert "Traceback" not in done.stderr, done.stderr
        return done

    return run


def one_line(done: subprocess.CompletedProcess[str]) -> str:
    """The one line of an error that ended a command with status 2."""
    assert done.returncode == 2, (done.returncode, done.stdout, done.stderr)
    line, *more = done.stderr.rstrip().split("\n")
    assert not more and line.startswith("edgeagent: "), done.stderr
    return line
