"""`scripts/bench engine`: what the served path reaches of a bare llama.cpp loop.

Rounds alternate between the bare loop and the served path, so that a machine whose speed drifts
changes both. A round in which other processes used more than `--busy` of the machine is repeated.
Figures are medians over the rounds; each served round is compared with the mean of the bare loop just
before and just after it.
"""

from __future__ import annotations

import argparse
import datetime
import functools
import itertools
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from edgeagent.catalog.gguf.model_facts_reader import inspect
from edgeagent.catalog.model_library import Library
from edgeagent.catalog.sizing.memory import WorkerSetup, worker_memory
from edgeagent.catalog.sizing.model_shape import from_facts
from edgeagent.settings.engine import EngineSettings
from edgeagent.types.engine_config import EngineConfig
from edgeagent.worker.process_environment import worker_environment
from scripts.benchmarks import machine
from scripts.benchmarks.served import Served, serving

MODEL = "smollm2-135m-instruct"
N_CTX = 4096
N_SEQ = 8
# What the bare loop has too; a profile may choose otherwise. What a worker holds beside weights and cells is
# told by what it takes with all of its cells.
SETTINGS = {"n_ctx": N_CTX, "n_seq": N_SEQ, "engine.cells_on_demand": False}
MAX_REPEATS = 12


def _json(command: list[str]) -> dict[str, Any]:
    environment = os.environ | worker_environment(True)  # threads wait as those of workers do
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if done.returncode != 0:
        raise SystemExit(done.stderr[-2000:] or done.stdout)
    return dict(json.loads(done.stdout.splitlines()[-1]))


def raw(model: Path, n_seq: int, n_tokens: int, n_threads: int) -> dict[str, Any]:
    script = str(Path(__file__).with_name("raw_loop.py"))
    return _json(
        [sys.executable, script, str(model), *map(str, (n_seq, n_tokens, n_threads, N_CTX))]
    )


def load(url: str, **options: Any) -> dict[str, Any]:
    command = [sys.executable, "-m", "scripts.benchmarks.load", url]
    for name, value in options.items():
        command += [f"--{name.replace('_', '-')}", str(value)]
    return _json(command)


class Rounds:
    """Measurements that count only where the machine was ours."""

    def __init__(self, busy: float) -> None:
        self._busy = busy
        self.n_repeated = 0

    def measure(self, run: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        for _ in range(MAX_REPEATS):
            quiet = machine.Quiet()
            result = run()
            if quiet.others() <= self._busy:
                return result
            self.n_repeated += 1
        raise SystemExit(
            "other processes keep this machine busy: measure when it is quiet, or raise --busy"
        )


def measure(args: argparse.Namespace, bar: Progress) -> dict[str, Any]:
    model = Library(args.models_dir).resolve(MODEL).path
    rounds = Rounds(args.busy)
    task = bar.add_task("rounds", total=2 * args.rounds + 3)
    rows: dict[str, list[dict[str, Any]]] = {}
    with serving(args.models_dir, n_threads=args.threads, **SETTINGS) as served:
        ready_s = served.wait_until_ready()
        idle = _memory(served)
        first = load(served.url, max_tokens=2)
        bar.advance(task)
        for n_seq in (1, N_SEQ):
            bare: list[dict[str, Any]] = rows.setdefault(f"raw {n_seq}", [])
            ours: list[dict[str, Any]] = rows.setdefault(f"served {n_seq}", [])
            run_raw = functools.partial(raw, model, n_seq, args.tokens, args.threads)
            bare.append(rounds.measure(run_raw))
            for i in range(args.rounds):
                run_served = functools.partial(
                    load, served.url, clients=n_seq, max_tokens=args.tokens, salt=10 * i
                )
                ours.append(rounds.measure(run_served))
                bare.append(rounds.measure(run_raw))
                bar.advance(task)
        after = _memory(served)
    cold, shared = _prefix(args, rounds)
    bar.advance(task)
    bandwidth = {n: machine.bandwidth_bytes_per_s(n) for n in range(1, args.threads + 1)}
    bar.advance(task)
    return {
        "machine": machine.describe(),
        "date": datetime.date.today().isoformat(),
        "rows": rows,
        "ready_s": ready_s,
        "first_token_s": ready_s + first["ttft_p50_s"],
        "idle": idle,
        "after": after,
        "cold": cold,
        "shared": shared,
        "bandwidth": bandwidth,
        "n_repeated": rounds.n_repeated,
        "kv_bytes": _kv_bytes(model, args.threads),
    }


def _kv_bytes(model: Path, n_threads: int) -> int:
    """Of the cells of all contexts of the worker, which has taken memory for them."""
    settings = EngineSettings()
    config = EngineConfig(
        model_id=MODEL, path="", n_ctx=N_CTX, n_seq=N_SEQ, n_threads=n_threads,
        prompt_cells=settings.prompt_cells, answer_cells=settings.answer_cells,
    )  # fmt: skip
    return worker_memory(from_facts(inspect(model)), WorkerSetup.of(config, frozenset())).kv_bytes


def _prefix(args: argparse.Namespace, rounds: Rounds) -> tuple[list[float], list[float]]:
    """Cold TTFT of one client, and p95 TTFT of 8 clients with 3 requests each, on fresh daemons."""
    cold, shared = [], []
    for _ in range(args.rounds):

        def one() -> dict[str, Any]:
            with serving(args.models_dir, n_threads=args.threads, **SETTINGS) as served:
                served.wait_until_ready()
                return load(served.url, workload="prefix", clients=1, requests=1, max_tokens=48)

        def eight() -> dict[str, Any]:
            with serving(args.models_dir, n_threads=args.threads, **SETTINGS) as served:
                served.wait_until_ready()
                return load(served.url, workload="prefix", clients=8, requests=3, max_tokens=48)

        cold.append(rounds.measure(one)["ttft_p50_s"])
        shared.append(rounds.measure(eight)["ttft_p95_s"])
    return cold, shared


def _memory(served: Served) -> dict[str, int]:
    """Resident bytes of the daemon, the worker and the template process, and what `all` hold together, in
    which pages that several have count once."""
    import psutil

    def rss(module: str) -> int:
        return sum(child.memory_info().rss for child in served.children(module))

    return {
        "daemon": psutil.Process(served.process.pid).memory_info().rss,
        "worker": rss("edgeagent.engine.worker"),
        "template": rss("edgeagent.engine.template"),
        "all": machine.memory_bytes(served.process.pid),
    }


def report(found: dict[str, Any]) -> None:
    console = Console(width=120)
    console.print(
        f"{found['machine']}, {found['date']}, {found['n_repeated']} busy rounds repeated"
    )
    table = Table("figure", "value", "bar", "ok", box=None)
    med = statistics.median

    def row(name: str, value: str, bar: str = "", ok: bool | None = None) -> None:
        table.add_row(name, value, bar, "" if ok is None else ("yes" if ok else "NO"))

    for n_seq, bar in ((1, 0.90), (N_SEQ, 0.88)):
        raws = [r["decode_tok_s"] for r in found["rows"][f"raw {n_seq}"]]
        ours = [r["decode_tok_s"] for r in found["rows"][f"served {n_seq}"]]
        # Each served round against the mean of the bare loop just before and just after it.
        around = [(a + b) / 2 for a, b in itertools.pairwise(raws)]
        ratios = [b / a for a, b in zip(around, ours, strict=True)]
        row(f"raw decode tokens/s, {n_seq} seq", f"{med(raws):.1f}")
        row(f"served decode tokens/s, {n_seq} clients", f"{med(ours):.1f}")
        spread = f"{min(ratios):.3f} to {max(ratios):.3f}"
        row("  served / raw", f"{med(ratios):.3f} ({spread})", f">= {bar}", med(ratios) >= bar)
    ratio = med(found["shared"]) / med(found["cold"])
    row("prefix: cold TTFT, 1 client", f"{med(found['cold']):.2f} s")
    row("prefix: p95 TTFT, 8 clients x 3", f"{med(found['shared']):.2f} s")
    row("  8 clients / cold", f"{ratio:.2f}", "<= 1.6", ratio <= 1.6)
    daemon = found["idle"]["daemon"] / 1e6
    row("daemon RSS, idle", f"{daemon:.1f} MB", "<= 90", daemon <= 90)
    weights = found["rows"]["raw 1"][0]["weights_bytes"]
    kv = found["kv_bytes"]
    extra = (found["after"]["worker"] - weights - kv) / 1e6
    row("worker RSS after the load", f"{found['after']['worker'] / 1e6:.1f} MB")
    row(
        f"  over weights {weights / 1e6:.1f} + KV {kv / 1e6:.1f} MB",
        f"{extra:.1f} MB",
        "<= 80",
        extra <= 80,
    )
    row("template process RSS", f"{found['after']['template'] / 1e6:.1f} MB")
    beyond = (found["after"]["all"] - weights - kv) / 1e6
    row(
        "all processes over weights + KV, shared pages once",
        f"{beyond:.1f} MB",
        "<= 120",
        beyond <= 120,
    )
    row("start of process to ready", f"{found['ready_s']:.2f} s")
    first = found["first_token_s"]
    row("start of process to first token", f"{first:.2f} s", "<= 1.2", first <= 1.2)
    for n, rate in found["bandwidth"].items():
        row(f"memory bandwidth, {n} threads", f"{rate / 1e9:.1f} GB/s")
    reached = med([r["decode_tok_s"] for r in found["rows"]["raw 1"]]) * weights
    row("weights read by raw decode, 1 seq", f"{reached / 1e9:.1f} GB/s")
    console.print(table)


def main() -> None:
    parser = argparse.ArgumentParser(prog="scripts/bench engine", description=__doc__)
    parser.add_argument("--models-dir", type=Path, default=Path(".cache/models"))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tokens", type=int, default=128, help="tokens of each answer")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument(
        "--busy", type=float, default=0.05, help="share of the machine others may use"
    )
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    with Progress(console=Console(stderr=True)) as bar:
        found = measure(args, bar)
    if args.json:
        print(json.dumps(found))
    else:
        report(found)
