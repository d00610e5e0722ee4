"""`scripts/bench embed`: texts per second over HTTP, beside a bare llama.cpp loop of the same batches.

Rounds alternate between the two, so that a machine whose speed drifts changes both. One client sends
one batch after another on one connection, as base64; it runs on the same cores. Figures are medians;
each served round is compared with the mean of the bare loop just before and just after it.
"""

from __future__ import annotations

import argparse
import datetime
import functools
import itertools
import json
import os
import random
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from edgeagent.catalog.model_library import Library
from edgeagent.worker.process_environment import worker_environment
from scripts.benchmarks import machine
from scripts.benchmarks.engine import Rounds
from scripts.benchmarks.served import serving

MODEL = "all-minilm-l6-v2"
BATCHES = (1, 8, 64)
WORDS = ["the", "ferry", "left", "late", "because", "rain", "and", "wind", "kept", "boats", "in", "an",
         "old", "harbour", "until", "noon", "when", "nurse", "asked", "for", "report", "of", "her",
         "patient", "invoice", "customer", "was", "still", "open"]  # fmt: skip


def texts(n_batch: int, n_batches: int, seed: int = 1) -> list[list[str]]:
    """Batches of texts of 8 to 30 words."""
    draw = random.Random(seed)
    return [
        [" ".join(draw.choices(WORDS, k=draw.randint(8, 30))) for _ in range(n_batch)]
        for _ in range(n_batches)
    ]


def raw(model: Path, batches: list[list[str]], n_threads: int, seconds: float) -> dict[str, Any]:
    command = [sys.executable, str(Path(__file__).with_name("raw_embed.py")), str(model)]
    done = subprocess.run(
        [*command, str(n_threads), str(seconds)],
        input=json.dumps(batches), capture_output=True, text=True, check=False,
        env=os.environ | worker_environment(True),  # threads wait as those of workers do
    )  # fmt: skip
    if done.returncode != 0:
        raise SystemExit(done.stderr[-2000:])
    return dict(json.loads(done.stdout.splitlines()[-1]))


def served(http: httpx.Client, batches: list[list[str]], seconds: float) -> dict[str, Any]:
    n_texts, times = 0, []
    started = time.perf_counter()
    for batch in itertools.cycle(batches):
        before = time.perf_counter()
        if before - started >= seconds:
            break
        body = {"model": MODEL, "input": batch, "encoding_format": "base64"}
        answer = http.post("/v1/embeddings", json=body)
        answer.raise_for_status()
        times.append(time.perf_counter() - before)
        n_texts += len(batch)
    took = time.perf_counter() - started
    return {"texts_s": n_texts / took, "p50_ms": 1e3 * statistics.median(times)}


def measure(args: argparse.Namespace, bar: Progress) -> dict[int, Any]:
    model = Library(args.models_dir).resolve(MODEL).path
    rounds = Rounds(args.busy)
    task = bar.add_task("rounds", total=len(BATCHES) * args.rounds)
    found: dict[int, Any] = {}
    # The bare loop is one of llama.cpp: what the server adds is seen where it computes the same.
    settings: dict[str, Any] = {
        "preload": False, "n_threads": args.threads, "engine.int8_encoders": args.int8_encoders,
    }  # fmt: skip
    with (
        serving(args.models_dir, **settings) as daemon,
        httpx.Client(base_url=daemon.url, timeout=120) as http,
    ):
        for n_batch in BATCHES:
            batches = texts(n_batch, 20)
            run_raw = functools.partial(raw, model, batches, args.threads, args.seconds)
            run_served = functools.partial(served, http, batches, args.seconds)
            run_served()  # the model is loaded, and its speed known
            bare, ours = [rounds.measure(run_raw)], []
            for _ in range(args.rounds):
                ours.append(rounds.measure(run_served))
                bare.append(rounds.measure(run_raw))
                bar.advance(task)
            found[n_batch] = {"raw": bare, "served": ours}
    return found


def report(found: dict[int, Any]) -> None:
    console = Console(width=120)
    console.print(f"{machine.describe()}, {datetime.date.today().isoformat()}, {MODEL}")
    table = Table("texts in a request", "bare texts/s", "served texts/s", "served / bare", "p50 of a request",
                  box=None)  # fmt: skip
    med = statistics.median
    for n_batch, rows in found.items():
        bare = [row["texts_s"] for row in rows["raw"]]
        ours = [row["texts_s"] for row in rows["served"]]
        around = [(a + b) / 2 for a, b in itertools.pairwise(bare)]
        ratios = [b / a for a, b in zip(around, ours, strict=True)]
        table.add_row(
            str(n_batch), f"{med(bare):.0f}", f"{med(ours):.0f}",
            f"{med(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})",
            f"{med([row['p50_ms'] for row in rows['served']]):.1f} ms",
        )  # fmt: skip
    console.print(table)


def main() -> None:
    parser = argparse.ArgumentParser(prog="scripts/bench embed", description=__doc__)
    parser.add_argument("--models-dir", type=Path, default=Path(".cache/models"))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3.0, help="of each measurement")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--int8-encoders", choices=("auto", "on", "off"), default="off")
    parser.add_argument(
        "--busy", type=float, default=0.05, help="share of the machine others may use"
    )
    args = parser.parse_args()
    with Progress(console=Console(stderr=True)) as bar:
        found = measure(args, bar)
    report(found)
