"""`scripts/bench pool`: several models in one memory budget, and two at once on the same cores.

First: three models (links to one file) asked in turn by 8 clients under a budget that holds two; the
resident memory of all workers is sampled ten times a second, every request must be answered. Then: two
models decode at once; the sum of their rates, each over its rate alone, is what sharing the cores costs.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import httpx
import psutil
from rich.console import Console

from edgeagent.catalog.model_library import Library
from scripts.benchmarks import machine
from scripts.benchmarks.engine import MODEL
from scripts.benchmarks.load import decode_rate
from scripts.benchmarks.load import one as one_request
from scripts.benchmarks.served import Served, serving

NAMES = ("model-a", "model-b", "model-c")


def body(model: str, text: str, max_tokens: int) -> dict[str, Any]:
    return {
        "model": model,
        "messages": [{"role": "user", "content": text}],
        "max_tokens": max_tokens,
        "temperature": 0,
        "ignore_eos": True,
        "stream": True,
        "stream_options": {"include_usage": True},
    }


def workers_rss(served: Served) -> int:
    total = 0
    for child in psutil.Process(served.process.pid).children(recursive=True):
        try:
            total += child.memory_info().rss
        except psutil.NoSuchProcess:
            continue
    return total


async def in_turn(served: Served, seconds: float) -> tuple[int, int, list[int]]:
    """Requests answered, requests lost, and samples of the workers' memory."""
    n_answered, n_lost = 0, 0
    samples: list[int] = []
    end = time.monotonic() + seconds

    async def client(http: httpx.AsyncClient, k: int) -> None:
        nonlocal n_answered, n_lost
        turn = k
        while time.monotonic() < end:
            request = body(NAMES[turn % 3], f"Question {k}-{turn}", 16) | {"stream": False}
            request.pop("stream_options")
            response = await http.post("/v1/chat/completions", json=request)
            if response.status_code == 200:
                n_answered += 1
                turn += 1
            else:
                n_lost += 1

    async def sample() -> None:
        while time.monotonic() < end:
            samples.append(await asyncio.to_thread(workers_rss, served))
            await asyncio.sleep(0.1)

    async with httpx.AsyncClient(base_url=served.url, timeout=300) as http:
        await asyncio.gather(sample(), *(client(http, k) for k in range(8)))
    return n_answered, n_lost, samples


async def rates(served: Served, models: list[str], max_tokens: int) -> list[float]:
    """Decode rates of the models when asked at the same moment."""
    async with httpx.AsyncClient(base_url=served.url, timeout=300) as http:
        results = await asyncio.gather(
            *(one_request(http, body(model, "Tell me a story.", max_tokens)) for model in models)
        )
    return [decode_rate([result]) for result in results]


async def together(served: Served, rounds: int) -> list[float]:
    """Sums of rate together over rate alone, round by round."""
    two = list(NAMES[:2])
    for model in two:
        await rates(served, [model], 4)
    sums = []
    for _ in range(rounds):
        alone = [(await rates(served, [model], 160))[0] for model in two]
        both = await rates(served, two, 320)
        sums.append(sum(b / a for a, b in zip(alone, both, strict=True)))
    return sums


def main() -> None:
    parser = argparse.ArgumentParser(prog="scripts/bench pool", description=__doc__)
    parser.add_argument("--models-dir", type=Path, default=Path(".cache/models"))
    parser.add_argument("--seconds", type=float, default=120)
    parser.add_argument("--budget", type=int, default=600_000_000, help="bytes")
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    console = Console(stderr=True)
    source = Library(args.models_dir).resolve(MODEL).path
    with tempfile.TemporaryDirectory(dir=args.models_dir.parent) as folder:
        for name in NAMES:
            os.link(source, Path(folder, f"{name}.gguf"))
        settings = {"n_ctx": 2048, "n_seq": 8, "preload": False}
        with (
            console.status(f"three models in turn for {args.seconds:.0f} s"),
            serving(Path(folder), **settings, ram_budget_bytes=args.budget) as served,
        ):
            answered, lost, samples = asyncio.run(in_turn(served, args.seconds))
            evictions = served.log.read_text().count("reason=memory wanted by")
        with console.status("two models at once"), serving(Path(folder), **settings) as served:
            sums = asyncio.run(together(served, args.rounds))
    print(machine.describe())
    most = f"{max(samples) / 1e6:.0f} MB in {len(samples)} samples"
    print(f"budget {args.budget / 1e6:.0f} MB, workers at most {most}")
    print(f"requests answered {answered}, lost {lost}, evictions {evictions}")
    spread = f"{min(sums):.2f} to {max(sums):.2f}"
    print(
        f"two models at once, sum of rates over rates alone: {statistics.median(sums):.2f} ({spread})"
    )
