"""Starts child processes: which code they load, in which directory, and with which environment.

A child runs `python -P -m MODULE` in the directory `/`, so that no file in the current directory (a USB
stick with models) can be imported as a module. It gets the environment variables that it needs and no secrets
(`process_environment.worker_environment`), no standard input, and only the descriptors that are named.
"""

from __future__ import annotations

import os
import site
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from edgeagent.worker.loop_core import loop_core
from edgeagent.worker.process_environment import child_environment, python_path, worker_environment

_PACKAGE_PARENT = str(Path(__file__).resolve().parents[2])


def command(module: str, *arguments: str) -> list[str]:
    """The command line of a child that runs `module`. `-P` excludes the current directory from imports."""
    return [sys.executable, "-P", "-m", module, *arguments]


def start(
    module: str,
    *arguments: str,
    pass_fds: Iterable[int] = (),
    waits_long: bool = False,
    **options: Any,
) -> subprocess.Popen[Any]:
    """Start a worker process. Paths among `arguments` must be absolute. `options` are Popen's, `waits_long`
    is that of `process_environment.worker_environment`."""
    if waits_long:
        options["env"] = worker_environment(True, **_search_path())
    process = subprocess.Popen(command(module, *arguments), **_options(pass_fds, options))
    loop_core.free_process(process.pid)
    return process


def end(process: subprocess.Popen[Any], timeout_s: float = 20.0) -> None:
    """Tell a child to end, and kill it where it has not within `timeout_s`."""
    process.terminate()
    try:
        process.wait(timeout=timeout_s)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def run(module: str, *arguments: str, **options: Any) -> subprocess.CompletedProcess[Any]:
    """Run a worker process to its end. As `start`; `options` are those of `subprocess.run`."""
    return subprocess.run(command(module, *arguments), check=False, **_options((), options))


def _options(pass_fds: Iterable[int], options: dict[str, Any]) -> dict[str, Any]:
    defaults = {
        "stdin": subprocess.DEVNULL,
        "close_fds": True,
        "pass_fds": tuple(pass_fds),
        "cwd": "/",
        "env": worker_environment(**_search_path()),
    }
    return defaults | options


def environment_of_ours(**extra: str) -> dict[str, str]:
    """The environment, without the API key, for another `edgeagent` process."""
    return child_environment(**_search_path(), **extra)


def _search_path() -> dict[str, str]:
    """PYTHONPATH for a child, absolute. Includes this package if it is not installed."""
    paths = python_path()
    if not _is_installed() and _PACKAGE_PARENT not in paths:
        paths.append(_PACKAGE_PARENT)
    return {"PYTHONPATH": os.pathsep.join(paths)} if paths else {}


def _is_installed() -> bool:
    """Whether an interpreter finds this package in its own package directories."""
    folders = [*site.getsitepackages(), site.getusersitepackages()]
    if _PACKAGE_PARENT in folders:
        return True
    return any(_leads_here(path) for folder in folders for path in Path(folder).glob("*.pth"))


def _leads_here(path: Path) -> bool:
    try:
        return _PACKAGE_PARENT in path.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError):
        return False
