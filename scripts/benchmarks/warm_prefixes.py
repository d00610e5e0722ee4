"""`scripts/bench warm-prefixes`: the first chat after a restart, with its system prompt on disk and without.

Each round lets a daemon answer three chats with a system prompt of --words words, none of them stored, and
waits until what was computed of the prompt is on disk. Then it restarts the daemon and measures how long a
chat with another question takes to its first piece of text; the same with a daemon that keeps nothing.
Which comes first alternates. A round that another process disturbed is repeated.
"""

from __future__ import annotations

import argparse
import datetime
import functools
import json
import re
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import httpx
from rich.console import Console
from rich.table import Table

from scripts.benchmarks import machine
from scripts.benchmarks.engine import MODEL, SETTINGS, Rounds
from scripts.benchmarks.served import Served, serving
from scripts.benchmarks.workloads import prose

BAR = 0.2
MIN_WORDS = 200  # a shorter prompt is not kept
KEEPING_TIMEOUT_S = 60.0
QUESTIONS = ("Which word is the longest?", "Is there a colour in it?", "How does it begin?")
KEEPING = {"store.prefixes.min_age_s": 0}


def ask(served: Served, system: str, question: str) -> dict[str, Any]:
    """A chat, streamed: seconds to its first text, and counts of its prompt."""
    turns = [{"role": "system", "content": system}, {"role": "user", "content": question}]
    body = {
        "model": MODEL, "messages": turns, "temperature": 0, "max_tokens": 16, "stream": True,
        "stream_options": {"include_usage": True},
    }  # fmt: skip
    first_s, usage = None, {}
    sent = time.perf_counter()
    with httpx.stream("POST", f"{served.url}/v1/chat/completions", json=body, timeout=300) as reply:
        for line in reply.iter_lines():
            if not line.startswith("data: {"):
                continue
            chunk = json.loads(line[6:])
            if first_s is None and any(c["delta"].get("content") for c in chunk["choices"]):
                first_s = time.perf_counter() - sent
            usage = chunk.get("usage") or usage
    if first_s is None or not usage:
        raise SystemExit("no text came")
    n_cached = usage["prompt_tokens_details"]["cached_tokens"]
    return {"ttft_s": first_s, "n_prompt": usage["prompt_tokens"], "n_cached": n_cached}


def wait_until_kept(served: Served) -> int:
    """Bytes of the file."""
    deadline = time.monotonic() + KEEPING_TIMEOUT_S
    while not (found := re.search(r"warm_prefix_kept .*n_bytes=(\d+)", served.log.read_text())):
        if time.monotonic() > deadline:
            raise SystemExit("nothing was kept of the prompt: see [store.prefixes]")
        time.sleep(0.02)
    return int(found[1])


def one_round(args: argparse.Namespace, number: int) -> dict[str, Any]:
    system = f"Answer questions about this list of words: {prose(args.words, 11 * number)}."
    with tempfile.TemporaryDirectory() as folder:
        own = SETTINGS | {
            "state_dir": str(Path(folder, "state")),
            "store_key_file": str(Path(folder, "key")),
        }
        with serving(args.models_dir, **own, **KEEPING) as served:
            served.wait_until_ready()
            for question in QUESTIONS:
                ask(served, system, question)
            n_bytes = wait_until_kept(served)

        def warm() -> dict[str, Any]:
            with serving(args.models_dir, **own, **KEEPING) as served:
                served.wait_until_ready()
                return ask(served, system, "And how does it end?")

        def cold() -> dict[str, Any]:
            with serving(args.models_dir, **SETTINGS) as served:
                served.wait_until_ready()
                return ask(served, system, "And how does it end?")

        order = [warm, cold] if number % 2 else [cold, warm]
        found = {run.__name__: run() for run in order}
    if found["cold"]["n_cached"] or not found["warm"]["n_cached"]:
        raise SystemExit(f"the prompt was read by the wrong one: {found}")
    return found | {"n_bytes": n_bytes}


def report(rows: list[dict[str, Any]], n_repeated: int) -> None:
    console = Console(width=120)
    today = datetime.date.today().isoformat()
    console.print(f"{machine.describe()}, {today}, {n_repeated} busy rounds repeated")
    table = Table("figure", "value", "bar", "ok", box=None)
    med = statistics.median
    for name, what in (("cold", "computed"), ("warm", "read from disk")):
        took = [1e3 * row[name]["ttft_s"] for row in rows]
        value = f"{med(took):.0f} ms ({min(took):.0f} to {max(took):.0f})"
        table.add_row(f"first text after a restart, system prompt {what}", value)
    n_prompt = med(row["warm"]["n_prompt"] for row in rows)
    n_cached = med(row["warm"]["n_cached"] for row in rows)
    table.add_row("tokens of the prompt, of them read", f"{n_prompt:.0f}, {n_cached:.0f}")
    table.add_row("file", f"{med(row['n_bytes'] for row in rows) / 1e6:.1f} MB")
    ratios = [row["warm"]["ttft_s"] / row["cold"]["ttft_s"] for row in rows]
    value = f"{med(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
    table.add_row("read / computed", value, f"<= {BAR}", "yes" if med(ratios) <= BAR else "NO")
    console.print(table)


def main() -> None:
    parser = argparse.ArgumentParser(prog="scripts/bench warm-prefixes", description=__doc__)
    parser.add_argument("--models-dir", type=Path, default=Path(".cache/models"))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--words", type=int, default=900, help="of the system prompt")
    parser.add_argument(
        "--busy", type=float, default=0.05, help="share of the machine others may use"
    )
    args = parser.parse_args()
    if args.words < MIN_WORDS:
        parser.error(f"--words is {args.words}: a prompt is kept from about {MIN_WORDS} on")
    rounds = Rounds(args.busy)
    rows = [
        rounds.measure(functools.partial(one_round, args, number)) for number in range(args.rounds)
    ]
    report(rows, rounds.n_repeated)


if __name__ == "__main__":
    main()
