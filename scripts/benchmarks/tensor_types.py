"""`scripts/bench tensor-types MODEL.gguf`: what another tensor type would bring on this device.

For each type: how much faster the speed of tensor types says that it is (`models recommend`, measured anew),
how much faster a file of it is as timed beside MODEL, and the KL divergence between them on --text.
"""

from __future__ import annotations

import argparse
import asyncio
import datetime
import tempfile
from pathlib import Path

from rich.console import Console
from rich.table import Table

from edgeagent.catalog.sizing.speed import Rates
from edgeagent.device.microbenchmarks import measure
from edgeagent.device.probe import Device, probe
from edgeagent.device.tensor_rates import measure_tensors
from edgeagent.optimize.evaluate import EvaluationOptions
from edgeagent.optimize.requantization import (
    CANDIDATES,
    SAMPLE_TEXT,
    Forecast,
    RequantizedFile,
    forecasts,
    tried,
)
from scripts.benchmarks import machine

MACHINE_S, TENSORS_S = 8.0, 12.0


def rates_of(device: Device, n_threads: int) -> Rates:
    found = measure(device, limit_s=MACHINE_S)
    tensors = measure_tensors(device, n_threads, limit_s=TENSORS_S)
    if not found.best_memory_gb_per_s or not found.best_gemm_gflop_per_s:
        raise SystemExit("the machine could not be measured")
    return Rates(
        found.best_memory_gb_per_s * 1e9, found.best_gemm_gflop_per_s, tensors=tensors.rates
    )


def report(rates: Rates, rows: list[tuple[Forecast, RequantizedFile]]) -> None:
    console = Console(width=140)
    console.print(f"{machine.describe()}, {datetime.date.today().isoformat()}")
    types = Table(
        "type", "prompts, 10^9 products/s", "answers, 10^9 weights/s", "kernels", box=None
    )
    for name, rate in sorted(rates.tensors.items(), key=lambda item: -item[1].prefill):
        own = "own" if rate.is_repacked else ""
        types.add_row(name, f"{rate.prefill / 1e9:.0f}", f"{rate.decode / 1e9:.1f}", own)
    console.print(types)
    files = Table(
        "file", "MB", "prompts: forecast", "timed", "answers: forecast", "timed", "KL divergence", box=None
    )  # fmt: skip
    for told, made in rows:
        divergence = made.figures.divergence
        assert divergence is not None
        files.add_row(
            told.file_type, f"{made.figures.size_bytes / 1e6:.0f}", f"{told.prefill_gain:.2f}",
            f"{made.prefill_gain:.2f}", f"{told.decode_gain:.2f}", f"{made.decode_gain:.2f}",
            f"{divergence.mean:.4f} +- {divergence.error:.4f}",
        )  # fmt: skip
    console.print(files)


def main() -> None:
    parser = argparse.ArgumentParser(prog="scripts/bench tensor-types", description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("--types", default=",".join(CANDIDATES))
    parser.add_argument("--text", type=Path, default=SAMPLE_TEXT)
    parser.add_argument("--chunks", type=int, default=8)
    parser.add_argument("--runs", type=int, default=3)
    asyncio.run(compare(parser.parse_args()))


async def compare(args: argparse.Namespace) -> None:
    device = probe()
    n_threads = max(1, device.capacity.n_performance_cores)
    rates = rates_of(device, n_threads)
    kinds = args.types.upper().split(",")
    told = forecasts(args.model, rates, most_bytes=1 << 40, kinds=kinds)
    options = EvaluationOptions(
        texts=(args.text,), max_chunks=args.chunks, n_runs=args.runs, n_threads=n_threads
    )
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for one in told:
            rows.append(
                (one, await tried(args.model, Path(folder), one.file_type, options, float("inf")))
            )
            rows[-1][1].path.unlink()
    report(rates, rows)


if __name__ == "__main__":
    main()
