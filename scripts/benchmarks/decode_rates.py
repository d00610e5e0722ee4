"""Decode rates of files of one model: predicted one after another as `edgeagent optimize` does, and timed.

    scripts/bench decode-rates model-F16.gguf model-Q4_K_M.gguf ... [--threads N]

The formulas of `catalog/sizing` get the rates of this machine, measured first; the pace comes from the files
before. Run it on a quiet machine: runs beside other programs are repeated, and marked if that does not help.
"""

from __future__ import annotations

import argparse
import asyncio
from pathlib import Path

from edgeagent.cli.optimize import own_rates
from edgeagent.device.probe import probe
from edgeagent.optimize.decode_rates import (
    TOLERANCE,
    formula_tok_s,
    n_within,
    predictions,
    timed_decode,
)
from edgeagent.optimize.evaluate import EvaluationOptions
from scripts.benchmarks import machine


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
    rates = own_rates(probe(), given.threads)
    if rates is None:
        raise SystemExit("The rates of this machine could not be measured: try again.")
    print(f"{rates.bandwidth_bytes_per_s / 1e9:.1f} GB/s, {rates.gflops:.0f} GFLOP/s")
    options = EvaluationOptions(n_threads=given.threads)
    print("| file | MB | predicted | timed | |\n|---|---|---|---|---|")
    formulas: list[float | None] = []
    timed: list[float] = []
    for path in given.models:
        formulas.append(formula_tok_s(path, rates))
        found = asyncio.run(timed_decode(path, options))
        timed.append(found.tok_s)
        predicted = predictions(formulas, timed)[-1]
        assert predicted is not None
        load = f"beside {found.others_cores:.1f} busy cores" if found.others_cores else ""
        print(
            f"| {path.stem} | {path.stat().st_size / 1e6:.1f} | {predicted:.1f} | {found.tok_s:.1f} "
            f"({predicted / found.tok_s - 1:+.0%}) | {load} |",
            flush=True,
        )
    n_good, n = n_within(predictions(formulas, timed), timed)
    print(f"Within {TOLERANCE:.0%}: {n_good} of {n}.")
