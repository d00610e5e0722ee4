"""A model file's facts, read by a process of its own: `python -m edgeagent.catalog.gguf.inspection FILE`.

The daemon asks for the facts of files that anybody may have dropped in. Reading them is bounded
(`gguf.Limits`), and what goes wrong all the same goes wrong in a child without sockets.
"""

from __future__ import annotations

import subprocess
import sys
from functools import lru_cache
from pathlib import Path

import msgspec

from edgeagent.catalog.gguf.model_facts import ModelFacts, inspect
from edgeagent.errors import EdgeAgentError, GGUFRefused
from edgeagent.worker import confinement, spawn

TIMEOUT_S = 20.0
ADDRESS_SPACE_BYTES = 2 << 30


class Inspection(msgspec.Struct, frozen=True):
    facts: ModelFacts | None = None
    error: str | None = None


def inspect_apart(path: Path) -> ModelFacts:
    """The facts of the file at `path`; remembered until the file changes. Blocks up to 20 s.

    Raises: GGUFRefused for what is no sound model.
    """
    try:
        stat = path.stat()
    except OSError as exc:
        raise GGUFRefused(f"{path} cannot be read ({exc.strerror}): check the file.") from exc
    return _remembered(path, stat.st_size, stat.st_mtime_ns)


@lru_cache(maxsize=64)
def _remembered(path: Path, _size: int, _mtime_ns: int) -> ModelFacts:
    try:
        done = spawn.run(
            "edgeagent.catalog.gguf.inspection",
            str(path.absolute()),
            capture_output=True,
            timeout=TIMEOUT_S,
        )
        found = msgspec.json.decode(done.stdout, type=Inspection)
    except (subprocess.TimeoutExpired, msgspec.MsgspecError) as exc:
        raise GGUFRefused(
            f"Reading the header of {path.name} failed: the file is damaged or hostile. Remove it."
        ) from exc
    if found.facts is None:
        raise GGUFRefused(found.error or f"{path.name} is no model.")
    return found.facts


def main(path: str) -> None:
    confinement.enter(read=[path], address_space_bytes=ADDRESS_SPACE_BYTES)
    try:
        found = Inspection(facts=inspect(Path(path)))
    except EdgeAgentError as exc:
        found = Inspection(error=exc.message)
    sys.stdout.buffer.write(msgspec.json.encode(found))


if __name__ == "__main__":
    main(sys.argv[1])
