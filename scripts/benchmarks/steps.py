"""`scripts/bench steps`: what steps were expected to cost, against what they took, in a mixed load.

A daemon that has measured its steps serves chats, dialogues, long prompts and shared prefixes; its worker
logs each step, and each chunk that a thread of its own computes beside them, with what was predicted before.
Errors are those of the prediction at that time: those of the
first steps, which correct the later ones, count too.
"""

from __future__ import annotations

import argparse
import re
import statistics
import tempfile
from pathlib import Path

from rich.console import Console
from rich.table import Table

from edgeagent.types.step_costs import TILE
from scripts.benchmarks import machine
from scripts.benchmarks.engine import MODEL, load
from scripts.benchmarks.served import serving_measured
from tests.conftest import CACHE

STEP = re.compile(
    r"step n_decode=(\d+) n_prefill=(\d+) decode_cells=\d+ prompt_depth=\d+ n_used=\d+ n_threads=\d+ "
    r"n_beside=(\d+) predicted_ms=([\d.]+) took_ms=([\d.]+)"
)
STEP_LINE = re.compile(r"step n_decode=.*")
LOADS = (
    {"workload": "chat", "clients": 1, "requests": 2, "max_tokens": 64},
    {"workload": "chat", "clients": 8, "requests": 2, "max_tokens": 48},
    {"workload": "dialogue", "clients": 6, "requests": 4, "max_tokens": 32},
    {"workload": "long", "clients": 2, "requests": 1, "max_tokens": 24},
    {"workload": "prefix", "clients": 8, "requests": 1, "max_tokens": 24},
)
BAR = 0.15


def kind_of(n_decode: int, n_prefill: int, n_beside: int) -> str:
    beside = f", {n_beside} beside" if n_beside else ""
    if n_prefill == 0:
        return f"decode of {n_decode if n_decode in (1, 8) else 'others'}{beside}"
    size = f"below {TILE}" if n_decode + n_prefill < TILE else f"{TILE} and more"
    return f"{'mixed' if n_decode else 'prompts'}, {size}{beside}"


def main() -> None:
    parser = argparse.ArgumentParser(prog="scripts/bench steps", description=__doc__)
    parser.add_argument("--models-dir", type=Path, default=CACHE)
    parser.add_argument("--model", default=MODEL)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--log", type=Path, metavar="FILE", help="keep the lines of the steps")
    args = parser.parse_args()
    settings = {"n_ctx": 16384, "n_seq": 8, "n_threads": args.threads, "default_model": args.model}
    options = ("--log-level", "debug")
    quiet = machine.Quiet()
    with (
        tempfile.TemporaryDirectory() as state,
        serving_measured(args.models_dir, state, *options, **settings) as served,
    ):
        served.wait_until_ready()
        for one in LOADS:
            load(served.url, **one)
        log = served.log.read_text()
        costs = Path(state, "step_costs.json").read_text()
    if args.log is not None:
        args.log.write_text(costs + "\n" + "\n".join(STEP_LINE.findall(log)))
    errors: dict[str, list[float]] = {}
    for n_decode, n_prefill, n_beside, predicted, took in STEP.findall(log):
        kind = kind_of(int(n_decode), int(n_prefill), int(n_beside))
        errors.setdefault(kind, []).append(float(predicted) / float(took) - 1)
    if not errors:
        raise SystemExit("The log has no steps.")
    errors["all"] = [error for values in errors.values() for error in values]
    print(f"{machine.describe()}, others {quiet.others():.0%}")
    table = Table("steps", "n", f"within {BAR:.0%}", "median error", "median of absolute errors")
    for name, values in sorted(errors.items()):
        within = sum(abs(error) <= BAR for error in values) / len(values)
        table.add_row(
            name, str(len(values)), f"{within:.0%}", f"{statistics.median(values):+.1%}",
            f"{statistics.median(map(abs, values)):.1%}",
        )  # fmt: skip
    Console(width=100).print(table)
