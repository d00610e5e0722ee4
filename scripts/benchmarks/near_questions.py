"""`scripts/bench near-questions`: questions that come near what documents tell, asked over HTTP.

Each organisation of `near_texts/` has a store of its own; its questions are asked of all of its documents.
Half of them no document answers. The files were written by hand, for measuring only.

    in use       declined by a judge's word where one is installed, else by evidence (`--least 0`)
    area         of an answerable and an unanswerable question, how often the first has the higher value
    lost at 90%  answerable questions that are declined at the threshold that declines 90% of the others

In brackets: 95% intervals (Wilson).
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console
from rich.table import Table

from scripts.benchmarks import machine
from scripts.benchmarks.answerability import area, declined_at, lost_at
from scripts.benchmarks.knowledge import Client, note
from scripts.benchmarks.served import serving
from scripts.judge.texts import Organisation, organisations

TEXTS = Path(__file__).parent / "near_texts"
SHARE = 0.9


class Told(NamedTuple):
    """A question, whether documents answer it, the document that does, and what the daemon told."""

    organisation: str
    question: str
    is_answered: bool
    title: str
    knowledge: dict[str, Any]
    cited: list[str]

    @property
    def is_declined(self) -> bool:
        return bool(self.knowledge["basis"] == "nothing")

    @property
    def evidence(self) -> float:
        """What was thin below the others, then what `sure_evidence` is compared with."""
        least = -1.0 if self.is_declined else 0.0
        return least + float(self.knowledge.get("quote_evidence") or self.knowledge["evidence"])

    @property
    def judged(self) -> float:
        """What a judge said; nothing was found where it was not asked."""
        return float(self.knowledge.get("answerability", 0.0))


def asked(client: Client, of: Organisation, least: float | None) -> list[Told]:
    files = [client.upload(f"{d.title}.md", d.markdown.encode()) for d in of.documents]
    store, _ = client.store(of.name, files)
    found = []
    for document in of.documents:
        for one in document.questions:
            tool = {
                "type": "file_search", "vector_store_ids": [store], "max_num_results": 4,
                "answers": "quotes", "least_answerability": least,
            }  # fmt: skip
            body = {"model": "none", "input": one.text, "store": False, "tools": [tool]}
            got = client.post("/v1/responses", body)
            notes = got["output"][-1]["content"][0]["annotations"]
            knowledge = got["edgeagent"]["knowledge"]
            cited = list(dict.fromkeys(n["filename"] for n in notes))
            told = Told(of.name, one.text, one.words is not None, document.title, knowledge, cited)
            found.append(told)
    return found


def interval(n: int, total: int, z: float = 1.96) -> tuple[float, float]:
    """Wilson's 95% interval of a share."""
    share = n / total
    middle = (share + z * z / (2 * total)) / (1 + z * z / total)
    half = z / (1 + z * z / total) * math.sqrt(share * (1 - share) / total + (z / 2 / total) ** 2)
    return middle - half, middle + half


def share(told: Sequence[Told], holds: Callable[[Told], bool]) -> str:
    n = sum(map(holds, told))
    low, high = interval(n, len(told))
    return f"{n} of {len(told)}, {n / len(told):.1%} ({low:.0%} to {high:.0%})"


def report(console: Console, told: Sequence[Told]) -> None:
    right = [one for one in told if one.is_answered]
    wrong = [one for one in told if not one.is_answered]
    is_judged = any("answerability" in one.knowledge for one in told)
    table = Table("declined", "answerable: lost", "unanswerable: declined (aim 90%)")
    in_use = [share(side, lambda one: one.is_declined) for side in (right, wrong)]
    table.add_row("in use", *in_use)
    console.print(table)
    answered = [one for one in right if not one.is_declined]
    if answered:
        is_cited = share(answered, lambda one: f"{one.title}.md" in one.cited)
        console.print(f"answered: the right document is cited in {is_cited}")
    table = Table("value", "area", "declined at 5%, 10%, 20% lost", f"lost at {SHARE:.0%} declined")
    own, others = (
        [one.judged if is_judged else one.evidence for one in side] for side in (right, wrong)
    )
    declined = ", ".join(f"{declined_at(own, others, loss):.0%}" for loss in (0.05, 0.1, 0.2))
    lost = lost_at(own, others, SHARE)
    low, high = interval(round(lost * len(right)), len(right))
    table.add_row(
        "judge" if is_judged else "evidence",
        f"{area(own, others):.3f}", declined, f"{lost:.1%} ({low:.0%} to {high:.0%})",
    )  # fmt: skip
    console.print(table)


def main() -> None:
    parser = argparse.ArgumentParser(prog="scripts/bench near-questions", description=__doc__)
    parser.add_argument("--texts", type=Path, default=TEXTS, help="folder of organisations")
    parser.add_argument("--models-dir", type=Path, default=Path(".cache/models"))
    parser.add_argument(
        "--least", type=float, help="least_answerability; default: as the settings say; 0: no judge"
    )
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--kept", type=Path, help="file for what was told, JSON lines")
    args = parser.parse_args()
    console = Console(width=120)
    console.print(machine.describe())
    told: list[Told] = []
    with serving(args.models_dir, preload=False, n_threads=args.threads) as daemon:
        client = Client(daemon.url)
        started = time.monotonic()
        for of in organisations(args.texts.glob("*.txt")):
            told += asked(client, of, args.least)
            note(f"{of.name}: {len(told)} questions, {time.monotonic() - started:.0f} s")
    if args.kept is not None:
        rows = (json.dumps(one._asdict(), ensure_ascii=False) + "\n" for one in told)
        args.kept.write_text("".join(rows), encoding="utf-8")
    report(console, told)


if __name__ == "__main__":
    main()
