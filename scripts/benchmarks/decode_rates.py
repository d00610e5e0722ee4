"""Decode rates of files of one model: predicted one after another as `edgeagent optimize` does, and timed.

    scripts/bench decode-rates model-F16.gguf model-Q4_K_M.gguf ... [--threads N]

The speed of each tensor type in the files is timed on matrices of the model's shapes; the pace comes from the
files before. All files and types are timed in turn, round by round, so that what the machine does meanwhile
meets all of them. Each is told by the median of its runs and tokens, and by its best run and fastest tokens;
the last column is how far the odd rounds are from the even ones, which no prediction can be better than. Run
it on a quiet machine.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import tempfile
from collections.abc import Sequence
from pathlib import Path

from edgeagent.catalog.gguf.header import read_header
from edgeagent.optimize.decode_rates import TOLERANCE, DecodeRate, n_within, predictions
from edgeagent.optimize.evaluate import EvaluationOptions, time_model
from edgeagent.optimize.figures import RunFigures
from edgeagent.optimize.sensitivity import quantizable
from edgeagent.optimize.type_speeds import speeds_of, unmixed, write_zeros
from scripts.benchmarks import machine


def types_of(path: Path) -> dict[str, str]:
    header = read_header(path)
    able = set(quantizable(header))
    return {tensor.name: tensor.type.name for tensor in header.tensors if tensor.name in able}


async def rounds(
    paths: Sequence[Path], n: int, options: EvaluationOptions
) -> dict[Path, list[RunFigures]]:
    """Runs of each file, in turn."""
    found: dict[Path, list[RunFigures]] = {path: [] for path in paths}
    for _ in range(n):
        for path in paths:
            found[path].append(await time_model(path, options))
    return found


def median_rate(runs: Sequence[RunFigures]) -> float:
    """The median run, each by its median token."""
    return statistics.median(run.decode_tok_s for run in runs)


def undisturbed_rate(runs: Sequence[RunFigures]) -> float:
    """The best run, each by its fastest tokens."""
    return max(run.undisturbed_tok_s for run in runs)


WAYS = (("median", median_rate), ("undisturbed", undisturbed_rate))


async def compare(models: Sequence[Path], n: int, options: EvaluationOptions) -> None:
    header = read_header(models[0])
    kinds = sorted({"Q8_0", *(kind for path in models for kind in types_of(path).values())})
    with tempfile.TemporaryDirectory() as folder:
        zeros = {kind: Path(folder) / f"{kind}.gguf" for kind in kinds}
        for kind, path in zeros.items():
            write_zeros(header, path, kind)
        runs = await rounds([*zeros.values(), *models], n, options)
    for name, rate in WAYS:
        print(f"\n{name}:")
        token_s = {kind: 1 / rate(runs[path]) for kind, path in zeros.items()}
        speeds = speeds_of(header, unmixed(header, token_s))
        told = ", ".join(f"{kind} {1e3 * s:.2f}" for kind, s in speeds.token_s.items())
        print(f"ms of a token in one type: {told}")
        print("| file | MB | predicted | timed | odd and even rounds |\n|---|---|---|---|---|")
        by_types = [1 / (speeds.seconds(types_of(path)) or 1) for path in models]
        timed = [DecodeRate(rate(runs[path]), 0.0) for path in models]
        predicted = predictions(by_types, timed)
        for path, expected, one in zip(models, predicted, timed, strict=True):
            assert expected is not None
            apart = rate(runs[path][::2]) / rate(runs[path][1::2]) - 1 if n > 1 else 0.0
            print(
                f"| {path.stem} | {path.stat().st_size / 1e6:.1f} | {expected:.1f} | {one.tok_s:.1f} "
                f"({expected / one.tok_s - 1:+.0%}) | {apart:+.0%} |"
            )
        n_good, n_all = n_within(predicted, timed)
        print(f"Within {TOLERANCE:.0%}: {n_good} of {n_all}.", flush=True)
    busy = [run.others_cores or 0.0 for found in runs.values() for run in found]
    print(f"Others used up to {max(busy):.1f} cores during a run.")


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="scripts/bench decode-rates",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("models", type=Path, nargs="+")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=3, help="over all files and types, in turn")
    given = parser.parse_args()
    print(machine.describe())
    options = EvaluationOptions(n_threads=given.threads)
    asyncio.run(compare(given.models, given.rounds, options))
