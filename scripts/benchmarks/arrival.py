"""`scripts/bench arrival --llama-server BIN`: a short request that arrives while a prompt is computed.

A long text is sent, alone, and then others, each followed after one of `--after` seconds by a short question.
Both servers have the same model, threads and cells; one of them at a time has work. Figures are seconds to
the first token: of the short request, of the long one with it, and of a long one alone. Loopback only.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import tempfile
from pathlib import Path
from typing import Any

import httpx
from rich.console import Console
from rich.table import Table

from edgeagent.catalog.model_library import Library
from scripts.benchmarks import load, machine
from scripts.benchmarks.engine import MODEL
from scripts.benchmarks.peers import llama_server
from scripts.benchmarks.served import serving_measured
from scripts.benchmarks.workloads import Dialogue
from tests.conftest import CACHE


async def first_token_s(url: str, workload: str, salt: int) -> float:
    body: dict[str, Any] = {
        "messages": Dialogue(workload, salt).messages(0), "max_tokens": 8, "temperature": 0,
        "ignore_eos": True, "stream": True, "stream_options": {"include_usage": True},
    }  # fmt: skip
    answer = await load.one(httpx.URL(url), body)
    return float(answer["stamps"][0] - answer["sent"])


async def pair(url: str, after_s: float, salt: int) -> tuple[float, float]:
    """Of a short request that comes `after_s` after a long one, and of that."""
    long = asyncio.create_task(first_token_s(url, "long", salt))
    await asyncio.sleep(after_s)
    short_s = await first_token_s(url, "chat", salt)
    return short_s, await long


def measured(url: str, after: list[float], n_round: int) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {"short": [], "long with it": [], "long alone": []}
    for number, after_s in enumerate(after):
        short_s, long_s = asyncio.run(pair(url, after_s, 200 + 20 * n_round + number))
        found["short"].append(short_s)
        found["long with it"].append(long_s)
    found["long alone"].append(asyncio.run(first_token_s(url, "long", 219 + 20 * n_round)))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="scripts/bench arrival",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--llama-server", type=Path, required=True, metavar="BIN")
    parser.add_argument("--models-dir", type=Path, default=CACHE)
    parser.add_argument("--model", default=MODEL)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--n-ctx", type=int, default=16384)
    parser.add_argument("--n-seq", type=int, default=8)
    parser.add_argument("--after", type=float, nargs="+", default=[0.3, 0.7, 1.0, 1.4, 1.9, 2.3])
    parser.add_argument("--rounds", type=int, default=2)
    args = parser.parse_args()
    args.peer_options = ""
    model = Library(args.models_dir).resolve(args.model)
    settings = {"n_ctx": args.n_ctx, "n_seq": args.n_seq, "n_threads": args.threads}
    with (
        tempfile.TemporaryDirectory() as state,
        serving_measured(args.models_dir, state, **settings, default_model=model.id) as ours,
        llama_server(args.llama_server, model.path, args) as (their_url, _),
    ):
        ours.wait_until_ready()
        urls = {"edgeagent": ours.url, "llama-server": their_url}
        for url in urls.values():
            asyncio.run(first_token_s(url, "chat", 9000))
        quiet = machine.Quiet()
        found: dict[str, dict[str, list[float]]] = {}
        for n_round in range(args.rounds):
            for name, url in urls.items():
                for what, values in measured(url, args.after, n_round).items():
                    found.setdefault(what, {}).setdefault(name, []).extend(values)
    print(f"{machine.describe()}, others {quiet.others():.0%}")
    table = Table("first token of", "server", "n", "median, s", "most, s")
    for what, by_server in found.items():
        for name, values in by_server.items():
            table.add_row(
                what,
                name,
                str(len(values)),
                f"{statistics.median(values):.2f}",
                f"{max(values):.2f}",
            )
    Console(width=100).print(table)
