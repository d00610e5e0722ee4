"""What a worker with a model takes, estimated and measured. Prints one line for each case.

    memory.py [MODEL.gguf ...]        with SmolLM2 as the first; the others are made for the purpose

Each model is loaded into a real worker, runs a prompt longer than a step and a batch of all its
sequences, and its memory is then read from the kernel (worker and template process, RSS).
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from edgeagent.catalog.gguf.model_facts_reader import inspect
from edgeagent.catalog.sizing.memory import WorkerSetup, worker_memory
from edgeagent.catalog.sizing.model_shape import from_facts
from edgeagent.catalog.sizing.repack import repacked_types
from edgeagent.device.probe import probe
from tests.catalog.synthetic import DESIGNS, write_model
from tests.catalog.worker_rss import measured_rss

CASES = (
    {"kv_type": "f16", "n_ctx": 4096},
    {"kv_type": "q8_0", "n_ctx": 4096},
    {"kv_type": "q8_0", "n_ctx": 2048, "n_batch": 128, "n_seq": 2, "n_prefixes": 4},
    {"kv_type": "f16", "n_ctx": 4096, "use_mmap": False},
)  # fmt: skip


def main() -> None:
    device = probe()
    repacked = repacked_types(device.system.architecture or "", device.cpu.features)
    paths = [Path(name) for name in sys.argv[1:]]
    with tempfile.TemporaryDirectory() as folder:
        for name, design in DESIGNS.items() if paths else ():
            paths.append(write_model(Path(folder) / f"{name}.gguf", design, Path(sys.argv[1])))
        print(f"{'model':34}{'case':38}{'estimate':>10}{'measured':>10}{'error':>8}")
        for path in paths:
            for case in CASES:
                report(path, case, repacked)


def report(path: Path, case: dict[str, object], repacked: frozenset[str]) -> None:
    setup = WorkerSetup(repacked=repacked, **case)  # type: ignore[arg-type]
    estimate = worker_memory(from_facts(inspect(path)), setup)
    worker, template = asyncio.run(measured_rss(path, **case))
    measured = worker + template
    shown = " ".join(f"{value}" for value in case.values())
    error = estimate.total_bytes / measured - 1
    print(
        f"{path.stem:34}{shown:38}{estimate.total_bytes / 1e6:7.0f} MB{measured / 1e6:7.0f} MB"
        f"{error:8.1%}   {estimate.explain()}"
    )


main()
