"""`scripts/bench answerability`: a rank model as a judge of which questions documents answer.

What `scripts/bench bot-answers --answers quotes --kept FILE` found is read again. Of each question's
passages, windows of two sentences go to the model; the best one is the judgement. Nothing is fitted but the
last row, whose weights are fitted on the first half of the FAQs.

    in use        declined questions below all others, then what `sure_evidence` is compared with
    area          of an answerable and an unanswerable question, how often the first has the higher value
    declined      of unanswerable questions, at the threshold that loses 5, 10 or 20% of the answerable ones
    lost          of answerable questions, at the threshold that declines 90% of the others
"""

from __future__ import annotations

import argparse
import json
import math
import time
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from edgeagent.knowledge.quotes import N_PASSAGES, candidates
from edgeagent.knowledge.words import content_words, coverage
from scripts.benchmarks import machine
from scripts.benchmarks.knowledge import Client, note
from scripts.benchmarks.served import serving

LOSSES = (0.05, 0.1, 0.2)
DECLINED = 0.9
N_STEPS, RATE, DECAY = 2000, 0.1, 1e-3  # of the fit
# Name, the kinds of both sides, and which half of them.
SETS = (
    ("ferry", "answerable", "missing", None),
    ("FAQs, half 1", "FAQ, answerable", "FAQ, missing", 0),
    ("FAQs, half 2", "FAQ, answerable", "FAQ, missing", 1),
)
FITTED_ON = "FAQs, half 1"


@dataclass
class Asked:
    kind: str
    half: int
    question: str
    evidence: float
    in_use: float
    windows: list[str]


def asked(path: Path, n_windows: int) -> list[Asked]:
    """The questions of a file of kept answers, without those to documents about something else."""
    found: list[Asked] = []
    counts: dict[str, int] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        kind, question = row["kind"], row["question"]
        if kind.endswith("foreign"):
            continue
        counts[kind] = counts.get(kind, 0) + 1
        told = row["answer"]["edgeagent"]["knowledge"]
        passages = [one["text"] for one in row["answer"]["output"][0]["results"]]
        is_declined = told["basis"] == "nothing"
        in_use = told["evidence"] - 1 if is_declined else told.get("quote_evidence", 1.0)
        cut = windows(question, passages, n_windows)
        found.append(Asked(kind, (counts[kind] - 1) % 2, question, told["evidence"], in_use, cut))
    return found


def windows(question: str, passages: Sequence[str], n_windows: int) -> list[str]:
    """Two sentences each, with the heading of their passage: those that have most of the question's words."""
    wanted = content_words(question)
    choice = candidates(passages)
    scored = []
    for one, following in zip(choice, [*choice[1:], None], strict=True):
        heading = passages[one.passage].partition("\n")[0].strip("# ")[:80]
        text = one.text
        if following is not None and following.passage == one.passage:
            text = f"{text} {following.text}"
        window = text[:420] if text.startswith(heading) else f"{heading}: {text}"[:500]
        scored.append((coverage(wanted, window) - 0.03 * one.passage, window))
    scored.sort(key=lambda pair: -pair[0])
    return [window for _, window in scored[:n_windows]]


def judged(client: Client, model: str, questions: Sequence[Asked]) -> tuple[list[float], float]:
    """The logit of each question's best window, and the median of the milliseconds of a request."""
    values, times = [], []
    for one in questions:
        if not one.windows:
            values.append(-10.0)
            continue
        body = {"model": model, "query": one.question, "documents": one.windows, "truncate": True}
        started = time.perf_counter()
        reply = client.post("/v1/rerank", body)
        times.append(1e3 * (time.perf_counter() - started))
        best = max(row["relevance_score"] for row in reply["results"])
        values.append(logit(best))
    return values, sorted(times)[len(times) // 2]


def logit(probability: float) -> float:
    kept = min(max(probability, 1e-6), 1 - 1e-6)
    return math.log(kept / (1 - kept))


def area(right: Sequence[float], wrong: Sequence[float]) -> float:
    """Of a pair, how often the right one is higher; a tie counts half."""
    ordered = sorted(wrong)
    below = sum(bisect_left(ordered, one) + bisect_right(ordered, one) for one in right)
    return below / (2 * len(right) * len(wrong))


def declined_at(right: Sequence[float], wrong: Sequence[float], loss: float) -> float:
    least = sorted(right)[round(loss * len(right))]
    return sum(one < least for one in wrong) / len(wrong)


def lost_at(right: Sequence[float], wrong: Sequence[float], share: float) -> float:
    """The share of answerable questions below the lowest threshold that declines this share."""
    ordered = sorted(wrong)
    highest = ordered[math.ceil(share * len(ordered)) - 1]
    return sum(one <= highest for one in right) / len(right)


def fitted(columns: Sequence[Sequence[float]], labels: Sequence[bool | None]) -> list[float]:
    """The value of a logistic regression; rows without a label take no part in the fit."""
    x = np.array(columns, np.float64).T
    known = np.array([label is not None for label in labels])
    y = np.array([bool(label) for label in labels])[known]
    x = (x - x[known].mean(0)) / x[known].std(0)
    x = np.hstack([x, np.ones((len(x), 1))])
    weights = np.zeros(x.shape[1])
    for _ in range(N_STEPS):
        told = 1 / (1 + np.exp(-x[known] @ weights))
        weights -= RATE * (x[known].T @ (told - y) / len(y) + DECAY * weights)
    return [float(value) for value in x @ weights]


def rows(questions: Sequence[Asked], judgement: Sequence[float] | None) -> dict[str, list[float]]:
    in_use = [one.in_use for one in questions]
    evidence = [one.evidence for one in questions]
    found = {"evidence of the best passage": evidence, "in use": in_use}
    if judgement is not None:
        _, right, wrong, half = next(one for one in SETS if one[0] == FITTED_ON)
        labels = [
            one.kind == right if one.half == half and one.kind in (right, wrong) else None
            for one in questions
        ]
        found["the model's judgement"] = list(judgement)
        if {True, False} <= set(labels):
            found["all three, fitted"] = fitted([evidence, in_use, judgement], labels)
    return found


def report(console: Console, questions: Sequence[Asked], found: dict[str, list[float]]) -> None:
    table = Table("", "set", "area", *(f"declined at {loss:.0%} lost" for loss in LOSSES),
                  f"lost at {DECLINED:.0%} declined")  # fmt: skip
    for name, values in found.items():
        for title, kind, other, half in SETS:
            sides: list[list[float]] = [
                [
                    value
                    for value, one in zip(values, questions, strict=True)
                    if one.kind == side and half in (None, one.half)
                ]
                for side in (kind, other)
            ]
            right, wrong = sides
            if not right or not wrong:
                continue
            table.add_row(
                name, f"{title} ({len(right)}, {len(wrong)})", f"{area(right, wrong):.2f}",
                *(f"{declined_at(right, wrong, loss):.0%}" for loss in LOSSES),
                f"{lost_at(right, wrong, DECLINED):.0%}",
            )  # fmt: skip
    console.print(table)


def main() -> None:
    parser = argparse.ArgumentParser(prog="scripts/bench answerability", description=__doc__)
    parser.add_argument("kept", type=Path, help="of `scripts/bench bot-answers --faq --kept FILE`")
    parser.add_argument("--models-dir", type=Path, default=Path(".cache/models"))
    parser.add_argument("--model", help="an installed rank model; default: only what is in use")
    parser.add_argument("--windows", type=int, default=8, help="that it reads for a question")
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    console = Console(width=130)
    console.print(machine.describe())
    questions = asked(args.kept, args.windows)
    judgement: list[float] | None = None
    if args.model is not None:
        settings: dict[str, Any] = {"preload": False, "n_threads": args.threads}
        with serving(args.models_dir, **settings) as daemon:
            judgement, p50_ms = judged(Client(daemon.url), args.model, questions)
        note(
            f"{args.windows} windows of {N_PASSAGES} passages: {p50_ms:.0f} ms a question (median)"
        )
    report(console, questions, rows(questions, judgement))


if __name__ == "__main__":
    main()
