"""What `responses` and `warm-prefixes` share: first texts after a restart, against computing the prompt."""

from __future__ import annotations

import argparse
import datetime
import functools
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from scripts.benchmarks import machine
from scripts.benchmarks.engine import Rounds

KEEPING_TIMEOUT_S = 60.0
MIN_WORDS = 200  # fewer are not kept
# Takes the arguments and the number of the round. Returns "cold" and "kept", each with "ttft_s" in seconds,
# "n_prompt" and "n_cached" in tokens, and "n_bytes" where the size on disk is known.
Round = Callable[[argparse.Namespace, int], dict[str, Any]]


@dataclass(frozen=True)
class Wording:
    """`what` has a first text; `words` says where the words go; `bar` is the greatest ratio that is good."""

    words: str
    what: str
    kept: str
    bar: float


def compare(name: str, doc: str | None, one_round: Round, wording: Wording) -> None:
    """Run the rounds that the command line asks for, and report."""
    parser = argparse.ArgumentParser(prog=f"scripts/bench {name}", description=doc)
    parser.add_argument("--models-dir", type=Path, default=Path(".cache/models"))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--words", type=int, default=900, help=wording.words)
    parser.add_argument(
        "--busy", type=float, default=0.05, help="share of the machine others may use"
    )
    args = parser.parse_args()
    if args.words < MIN_WORDS:
        parser.error(f"--words is {args.words}: a prompt is kept from about {MIN_WORDS} on")
    if args.rounds < 1:
        parser.error(f"--rounds is {args.rounds}: give at least 1")
    rounds = Rounds(args.busy)
    rows = [
        rounds.measure(functools.partial(one_round, args, number)) for number in range(args.rounds)
    ]
    _report(rows, rounds.n_repeated, wording)


def _report(rows: list[dict[str, Any]], n_repeated: int, wording: Wording) -> None:
    console = Console(width=120)
    today = datetime.date.today().isoformat()
    console.print(f"{machine.describe()}, {today}, {n_repeated} busy rounds repeated")
    table = Table("figure", "value", "bar", "ok", box=None)
    med = statistics.median
    for name, how in (("cold", "computed"), ("kept", wording.kept)):
        took = [1e3 * row[name]["ttft_s"] for row in rows]
        value = f"{med(took):.0f} ms ({min(took):.0f} to {max(took):.0f})"
        table.add_row(f"{wording.what}, {how}", value)
    n_prompt = med(row["kept"]["n_prompt"] for row in rows)
    n_cached = med(row["kept"]["n_cached"] for row in rows)
    table.add_row("tokens of the prompt, of them read", f"{n_prompt:.0f}, {n_cached:.0f}")
    if "n_bytes" in rows[0]:
        table.add_row("file", f"{med(row['n_bytes'] for row in rows) / 1e6:.1f} MB")
    ratios = [row["kept"]["ttft_s"] / row["cold"]["ttft_s"] for row in rows]
    value = f"{med(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
    is_good = med(ratios) <= wording.bar
    table.add_row(
        f"{wording.kept} / computed", value, f"<= {wording.bar}", "yes" if is_good else "NO"
    )
    console.print(table)
