"""Reads the facts of a model file in a confined child process (`inspection_process`).

Anybody may have put a file into the models directory. Reading it is limited (`header.HeaderLimits`), and a
crash ends only a child without sockets, not the daemon.
"""

from __future__ import annotations

import subprocess
from functools import lru_cache
from pathlib import Path

import msgspec

from edgeagent.catalog.gguf.model_facts import ModelFacts
from edgeagent.errors import GGUFRefused
from edgeagent.worker import spawn

TIMEOUT_S = 20.0
CHILD = "edgeagent.catalog.gguf.inspection_process"


class InspectionResult(msgspec.Struct, frozen=True):
    """The child's output as JSON: the facts, or why there are none."""

    facts: ModelFacts | None = None
    error: str | None = None


def inspect_apart(path: Path) -> ModelFacts:
    """The facts of the file at `path`, cached until the file changes. Blocks up to 20 s.

    Raises: GGUFRefused for a file that is not a sound model.
    """
    try:
        stat = path.stat()
    except OSError as exc:
        raise GGUFRefused(f"{path} cannot be read ({exc.strerror}): check the file.") from exc
    # Another file with the size and times of this one has another inode or time of change.
    identity = (stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)
    return _remembered(path, identity)


@lru_cache(maxsize=64)
def _remembered(path: Path, _identity: tuple[int, ...]) -> ModelFacts:
    try:
        done = spawn.run(
            CHILD,
            str(path.absolute()),
            capture_output=True,
            timeout=TIMEOUT_S,
        )
        found = msgspec.json.decode(done.stdout, type=InspectionResult)
    except (subprocess.TimeoutExpired, msgspec.MsgspecError) as exc:
        raise GGUFRefused(
            f"Reading the header of {path.name} failed: the file is damaged or malicious. Remove it."
        ) from exc
    if found.facts is None:
        raise GGUFRefused(found.error or f"{path.name} is not a model.")
    return found.facts
