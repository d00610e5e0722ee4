"""Child process that reads one model file: `python -m edgeagent.catalog.gguf.inspection_process FILE`."""

from __future__ import annotations

import sys
from pathlib import Path

import msgspec

from edgeagent.catalog.gguf.inspection import InspectionResult
from edgeagent.catalog.gguf.model_facts_reader import inspect
from edgeagent.errors import EdgeAgentError
from edgeagent.worker import confinement

ADDRESS_SPACE_BYTES = 2 << 30


def main(path: str) -> None:
    """Confine this process, then write an `InspectionResult` of the file to standard output."""
    confinement.enter(read=[path], address_space_bytes=ADDRESS_SPACE_BYTES)
    try:
        found = InspectionResult(facts=inspect(Path(path)))
    except EdgeAgentError as exc:
        found = InspectionResult(error=exc.message)
    sys.stdout.buffer.write(msgspec.json.encode(found))


if __name__ == "__main__":
    main(sys.argv[1])
