"""Decode rates of files of one model: predicted one after another as `edgeagent optimize` does, and timed.

    scripts/bench decode-rates model-F16.gguf model-Q4_K_M.gguf ... [--threads N]

The speed of each tensor type in the files is timed first, on matrices of the model's shapes; the pace comes
from the files before. Run it on a quiet machine: runs beside other programs are repeated, and marked if that
does not help.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
import time
from pathlib import Path

from edgeagent.catalog.gguf.header import read_header
from edgeagent.optimize.decode_rates import (
    TOLERANCE,
    DecodeRate,
    n_within,
    predictions,
    timed_decode,
)
from edgeagent.optimize.evaluate import EvaluationOptions
from edgeagent.optimize.sensitivity import quantizable
from edgeagent.optimize.type_speeds import timed_speeds
from scripts.benchmarks import machine


def types_of(path: Path) -> dict[str, str]:
    header = read_header(path)
    able = set(quantizable(header))
    return {tensor.name: tensor.type.name for tensor in header.tensors if tensor.name in able}


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="scripts/bench decode-rates",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("models", type=Path, nargs="+")
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    print(machine.describe())
    options = EvaluationOptions(n_threads=given.threads)
    kinds = {kind for path in given.models for kind in types_of(path).values()}
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        speeds = asyncio.run(timed_speeds(given.models[0], kinds, Path(folder), options))
    told = ", ".join(f"{kind} {1e3 * s:.2f}" for kind, s in sorted(speeds.token_s.items()))
    print(f"ms of a token in one type, timed in {time.monotonic() - started:.0f} s: {told}")
    print("| file | MB | predicted | timed | |\n|---|---|---|---|---|")
    by_types: list[float | None] = []
    timed: list[DecodeRate] = []
    for path in given.models:
        token_s = speeds.seconds(types_of(path))
        by_types.append(1 / token_s if token_s else None)
        found = asyncio.run(timed_decode(path, options))
        timed.append(found)
        predicted = predictions(by_types, timed)[-1]
        assert predicted is not None
        load = f"beside {found.others_cores:.1f} busy cores" if found.others_cores else ""
        print(
            f"| {path.stem} | {path.stat().st_size / 1e6:.1f} | {predicted:.1f} | {found.tok_s:.1f} "
            f"({predicted / found.tok_s - 1:+.0%}) | {load} |",
            flush=True,
        )
    n_good, n = n_within(predictions(by_types, timed), timed)
    print(f"Within {TOLERANCE:.0%}: {n_good} of {n}.")
