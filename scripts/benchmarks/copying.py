"""`scripts/bench copying`: answers that copy their prompt, and others, with and without speculation.

Two daemons that differ in `engine.speculation` alone; one of them at a time has work, and which one is first
alternates. Ratios are auto over off within a round; the table has their medians.
"""

from __future__ import annotations

import argparse
import re
import statistics
import sys
from pathlib import Path
from typing import Any

import httpx

from scripts.benchmarks import machine
from scripts.benchmarks.engine import MODEL, load
from scripts.benchmarks.served import serving
from tests.conftest import CACHE

SIDES = ("auto", "off")
COUNTERS = ("spec_decode_num_draft_tokens_total", "spec_decode_num_accepted_tokens_total")
REQUESTS = {1: 5, 8: 2}  # of each client, by the number of clients
MAX_TOKENS = {"copy": 128, "chat": 96, "json": 200}


def drafted(url: str) -> list[int]:
    """Tokens drafted and accepted since the start of the daemon, by its last heartbeat."""
    text = httpx.get(f"{url}/metrics").text
    found = (re.search(rf"^edgeagent:{name}{{.*}} (\S+)$", text, re.MULTILINE) for name in COUNTERS)
    return [int(float(match[1])) if match is not None else 0 for match in found]


def measured(args: argparse.Namespace) -> dict[tuple[str, int], list[dict[str, float]]]:
    """The rates of each workload and number of clients, in each round."""
    settings = {"n_ctx": args.n_ctx, "n_threads": args.threads, "default_model": args.model}
    found: dict[tuple[str, int], list[dict[str, float]]] = {}
    with (
        serving(args.models_dir, **settings, **{"engine.speculation": "auto"}) as auto,
        serving(args.models_dir, **settings, **{"engine.speculation": "off"}) as off,
    ):
        urls = {"auto": auto.url, "off": off.url}
        for served in (auto, off):
            served.wait_until_ready()
            load(served.url, max_tokens=16, salt=9000)
        for n_round in range(args.rounds):
            order = SIDES if n_round % 2 == 0 else SIDES[::-1]
            for workload in args.only:
                for clients in args.clients:
                    rates = {side: _rates(urls[side], workload, clients, n_round) for side in order}
                    record = {
                        f"{key} {side}": rate for side in SIDES for key, rate in rates[side].items()
                    }
                    found.setdefault((workload, clients), []).append(record)
                    ratio = record["tok_s auto"] / record["tok_s off"]
                    print(f"round {n_round}, {workload} {clients}: {ratio:.2f}", file=sys.stderr)
        n_drafted, n_accepted = drafted(auto.url)
        print(f"{n_drafted} tokens drafted, {n_accepted} accepted\n")
        assert drafted(off.url) == [0, 0]
    return found


def _rates(url: str, workload: str, clients: int, n_round: int) -> dict[str, float]:
    got: dict[str, Any] = load(
        url, workload=workload, clients=clients, requests=REQUESTS.get(clients, 2),
        max_tokens=MAX_TOKENS[workload], salt=100 * n_round,
    )  # fmt: skip
    return {"tok_s": got["out_tok_s"], "gap": got["itl_p95_s"] or 0.0, "ttft": got["ttft_p95_s"]}


def table(found: dict[tuple[str, int], list[dict[str, float]]]) -> str:
    lines = [
        "| workload | clients | auto, tokens/s | off, tokens/s | ratio | ratios of the rounds |",
        "|---|---|---|---|---|---|",
    ]
    for (workload, clients), records in found.items():
        ratios = sorted(record["tok_s auto"] / record["tok_s off"] for record in records)
        auto, off = (
            statistics.median(record[f"tok_s {side}"] for record in records) for side in SIDES
        )
        middle = f"{auto:.1f} | {off:.1f} | **{statistics.median(ratios):.2f}**"
        lines.append(f"| {workload} | {clients} | {middle} | {ratios[0]:.2f} to {ratios[-1]:.2f} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(prog="scripts/bench copying", description=__doc__)
    parser.add_argument("--models-dir", type=Path, default=CACHE)
    parser.add_argument("--model", default=MODEL)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", default="copy,chat", help=f"of {', '.join(MAX_TOKENS)}")
    parser.add_argument("--clients", default="1,8")
    parser.add_argument("--n-ctx", type=int, default=8192)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    args.only = args.only.split(",")
    args.clients = [int(n) for n in args.clients.split(",")]
    if unknown := set(args.only) - MAX_TOKENS.keys():
        parser.error(f"no such workload: {', '.join(unknown)}; there are {', '.join(MAX_TOKENS)}")
    quiet = machine.Quiet()
    found = measured(args)
    print(
        f"{machine.describe()}; other processes used {quiet.others():.0%} of it.\n\n{table(found)}"
    )


if __name__ == "__main__":
    main()
