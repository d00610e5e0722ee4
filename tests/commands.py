"""`edgeagent` as a person types it: in the process of the tests, or in one of its own.

A process takes half a second of a core before it does anything. It is the right one where the process is
what is tested (its memory, its signals, its locks), and for one command of each kind.
"""

from __future__ import annotations

import io
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, redirect_stderr, redirect_stdout
from typing import Any
from unittest import mock

from edgeagent.cli.main import main
from edgeagent.daemon import early_worker
from tests.conftest import clean_environment

Command = Callable[..., "subprocess.CompletedProcess[str]"]


def run_here(
    *arguments: object, env: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run `edgeagent` in this process; gives its exit status and what it printed. `serve` starts no worker
    before it has read its settings."""
    words = ["edgeagent", *map(str, arguments)]
    out, err = _text(), _text()
    with _as_command(words, _environment(env)), redirect_stdout(out), redirect_stderr(err):
        try:
            with mock.patch.object(early_worker, "waiting", nullcontext):
                main()
        except SystemExit as ended:
            status = ended.code
    for stream in (out, err):
        stream.flush()
    return subprocess.CompletedProcess(words, int(status or 0), _said(out), _said(err))


def run_apart(
    *arguments: object, env: dict[str, str] | None = None, **options: Any
) -> subprocess.CompletedProcess[str]:
    """Run `edgeagent` in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "edgeagent", *map(str, arguments)], capture_output=True, text=True,
        env=_environment(env), stdin=subprocess.DEVNULL, **({"timeout": 120, "check": False} | options),
    )  # fmt: skip


def _environment(env: dict[str, str] | None) -> dict[str, str]:
    return clean_environment() | {"COLUMNS": "200"} | (env or {})


@contextmanager
def _as_command(words: list[str], environment: dict[str, str]) -> Iterator[None]:
    before = sys.argv, sys.stdin, dict(os.environ)
    sys.argv, sys.stdin = words, io.StringIO()
    try:
        _set(environment)
        yield
    finally:
        sys.argv, sys.stdin = before[:2]
        _set(before[2])


def _set(environment: dict[str, str]) -> None:
    os.environ.clear()
    os.environ.update(environment)


def _text() -> io.TextIOWrapper:
    return io.TextIOWrapper(io.BytesIO(), encoding="utf-8")


def _said(stream: io.TextIOWrapper) -> str:
    written: io.BytesIO = stream.buffer  # type: ignore[assignment]
    return written.getvalue().decode()
