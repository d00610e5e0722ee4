"""`scripts/bench near-questions`: questions that come near what documents tell, asked over HTTP.

Each organisation of `near_texts/` has a store of its own; its questions are asked of all of its documents.
A third of them no document answers. The files were written by hand, for measuring only.

    in use       declined by a judge's word where one is installed, else by evidence (`--least 0`); or told as
                 uncertain, behind a sentence that says so
    area         of an answerable and an unanswerable question, how often the first has the higher value
    lost at 90%  answerable questions that are declined at the threshold that declines 90% of the others
    has it       quotes that have what answers: all of its words, or four fifths of its content words

In brackets: 95% intervals (Wilson). The processor time is that of the workers of all models: with and without
a judge, it tells what the judge costs.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console
from rich.table import Table

from edgeagent.knowledge.words import content_words
from scripts.benchmarks import machine
from scripts.benchmarks.answerability import area, declined_at, lost_at
from scripts.benchmarks.intervals import interval
from scripts.benchmarks.knowledge import Client, note
from scripts.benchmarks.served import Served, serving
from scripts.judge.pairs import holds
from scripts.judge.texts import Organisation, organisations

TEXTS = Path(__file__).parent / "near_texts"
SHARE = 0.9
THRESHOLDS = (0.2, 0.3, 0.35, 0.4, 0.5, 0.6, 0.7, 0.75, 0.8, 0.85)  # of a judge
COVERED = 0.8


class Told(NamedTuple):
    """A question, the words of documents that answer it, the document with them, and what the daemon told."""

    organisation: str
    question: str
    words: str | None
    title: str
    knowledge: dict[str, Any]
    cited: list[str]
    text: str

    @property
    def is_answered(self) -> bool:
        return self.words is not None

    @property
    def is_declined(self) -> bool:
        return bool(self.knowledge["basis"] == "nothing")

    @property
    def is_uncertain(self) -> bool:
        """Whether it is declined, or a sentence before it says that it may be no answer."""
        return self.knowledge["is_sure"] is not True

    @property
    def has_words(self) -> bool:
        wanted = content_words(self.words or "")
        own = len(wanted & content_words(self.text)) / max(1, len(wanted))
        return own >= COVERED or holds(self.text, self.words or "")

    @property
    def evidence(self) -> float:
        """What was thin below the others, then what `sure_evidence` is compared with."""
        least = -1.0 if self.is_declined else 0.0
        return least + float(self.knowledge.get("quote_evidence") or self.knowledge["evidence"])

    @property
    def judged(self) -> float:
        """What a judge said; nothing was found where it was not asked."""
        return float(self.knowledge.get("answerability", 0.0))


def asked(
    client: Client, daemon: Served, of: Organisation, least: float | None
) -> tuple[list[Told], float]:
    """What is told, and the seconds of processor time that the workers took for it."""
    files = [client.upload(f"{d.title}.md", d.markdown.encode()) for d in of.documents]
    store, _ = client.store(of.name, files)
    found = []
    began_s = None
    for document in of.documents:
        for one in document.questions:
            tool = {
                "type": "file_search", "vector_store_ids": [store], "max_num_results": 4,
                "answers": "quotes", "least_answerability": least,
            }  # fmt: skip
            body = {"model": "none", "input": one.text, "store": False, "tools": [tool]}
            if began_s is None:  # models are loaded by the first question
                client.post("/v1/responses", body)
                began_s = computed_s(daemon)
            got = client.post("/v1/responses", body)
            part = got["output"][-1]["content"][0]
            notes = part["annotations"]
            knowledge = got["edgeagent"]["knowledge"]
            cited = list(dict.fromkeys(n["filename"] for n in notes))
            told = Told(
                of.name, one.text, one.words, document.title, knowledge, cited, part["text"]
            )
            found.append(told)
    return found, computed_s(daemon) - (began_s or 0.0)


def computed_s(daemon: Served) -> float:
    times = [one.cpu_times() for one in daemon.children("edgeagent.engine.worker")]
    return float(sum(one.user + one.system for one in times))


def share(told: Sequence[Told], holds: Callable[[Told], bool]) -> str:
    n = sum(map(holds, told))
    low, high = interval(n, len(told))
    return f"{n} of {len(told)}, {n / len(told):.1%} ({low:.0%} to {high:.0%})"


def report(console: Console, told: Sequence[Told]) -> None:
    right = [one for one in told if one.is_answered]
    wrong = [one for one in told if not one.is_answered]
    is_judged = any("answerability" in one.knowledge for one in told)
    table = Table("", "answerable", "unanswerable (aim 90%)")
    in_use = [share(side, lambda one: one.is_declined) for side in (right, wrong)]
    table.add_row("declined", *in_use)
    uncertain = [share(side, lambda one: one.is_uncertain) for side in (right, wrong)]
    table.add_row("declined or told as uncertain", *uncertain)
    for least in THRESHOLDS if is_judged else ():
        below = [share(side, lambda one, t=least: one.judged < t) for side in (right, wrong)]  # type: ignore[misc]
        table.add_row(f"judge below {least:g}", *below)
    console.print(table)
    for name, answered in (
        ("all quotes", [one for one in right if not one.is_declined]),
        ("those without doubt", [one for one in right if not one.is_uncertain]),
    ):
        if answered:
            is_cited = share(answered, lambda one: f"{one.title}.md" in one.cited)
            console.print(f"{name}: the right document is cited in {is_cited}")
            console.print(
                f"{name}: the text has it in {share(answered, lambda one: one.has_words)}"
            )
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
    took_s = 0.0
    with serving(args.models_dir, preload=False, n_threads=args.threads) as daemon:
        client = Client(daemon.url)
        started = time.monotonic()
        for of in organisations(args.texts.glob("*.txt")):
            more, computed = asked(client, daemon, of, args.least)
            told += more
            took_s += computed
            note(f"{of.name}: {len(told)} questions, {time.monotonic() - started:.0f} s")
        sizes = [one.memory_info().rss for one in daemon.children("edgeagent.engine.worker")]
    workers = ", ".join(f"{size / 1e6:.0f}" for size in sizes)
    console.print(
        f"processor time of workers: {1e3 * took_s / len(told):.0f} ms a question; MB of each: {workers}"
    )
    if args.kept is not None:
        rows = (json.dumps(one._asdict(), ensure_ascii=False) + "\n" for one in told)
        args.kept.write_text("".join(rows), encoding="utf-8")
    report(console, told)


if __name__ == "__main__":
    main()
