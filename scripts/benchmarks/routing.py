"""Routing from end to end: an assistant model first, a chat model for what it leaves open.

    scripts/bench routing [--data ../shared/data] [--gate words] [--held-out DIR] [--sample 60] [--json FILE]
    scripts/bench routing --decisions        what a decision costs: rules, budgets, a policy, exploration

Texts of CLINC150's validation split with those out of scope, of Banking77 (every tenth, which the assistant
was not trained on), and 200 questions of MMLU as general ones go to `auto`. Shown per class: the share that
the small model keeps, how often its call is right, what is handed on, and the processor seconds of a request
beside those of the large model alone.

With --held-out no text is judged by a scope gate that was made with it; other texts (--items) are judged
by the bundled one. Data sets that are absent are left out with a line that says so.
"""

from __future__ import annotations

import argparse
import asyncio
import csv
import json
import os
import statistics
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from edgeagent.catalog.model_library import shipped_models_dir
from edgeagent.forge.datasets import OUT_OF_SCOPE
from scripts.benchmarks.assistant import CHAT, Item, items_of, validation
from scripts.benchmarks.exchange import Json, exchanged
from scripts.benchmarks.machine import describe
from scripts.benchmarks.routing_decisions import decision_ms
from scripts.benchmarks.scope_folds import N_FOLDS, fold_of, held_out_gates
from scripts.benchmarks.served import Served, serving

IN_SCOPE, OUTSIDE, SERVICE, GENERAL = "in scope", "out of scope", "banking", "general"
CLASSES = (IN_SCOPE, OUTSIDE, SERVICE, GENERAL)
N_GENERAL = 200
MAX_TOKENS = 32
TRIAL_TOKENS = 16
N_TRIES = 400


@dataclass(frozen=True)
class Case:
    """A text and its class."""

    item: Item
    kind: str


@dataclass(frozen=True)
class Outcome:
    """What became of a text: whether the small model kept it, whether its call is right (before any
    threshold: `best`), and its scores."""

    kept: bool
    right: bool
    best: bool
    probability: float
    margin: float


def cases(data: Path, every: int, items: Path | None = None) -> list[Case]:
    """The texts of all classes whose data sets are there; those of the file `items` in place of the
    validation texts."""
    found: list[Case] = []
    if items is not None or ((data / "clinc150").is_dir() and (data / "banking77").is_dir()):
        for item in items_of(items) if items is not None else validation(data):
            kind = {"assistant": IN_SCOPE, "service": SERVICE}.get(item.domain)
            if kind is not None:
                found.append(Case(item, OUTSIDE if item.intent == OUT_OF_SCOPE else kind))
    else:
        print(f"SKIPPED: {data} has no clinc150 and banking77")
    files = sorted((data / "routellm" / "mmlu").glob("*.csv"))
    if files:
        found += [Case(item, GENERAL) for item in questions(files)]
    else:
        print(f"SKIPPED: {data} has no routellm/mmlu")
    by_kind = [[case for case in found if case.kind == kind] for kind in CLASSES]
    return [case for group in by_kind for case in group[::every]]


def questions(files: Sequence[Path]) -> list[Item]:
    """The first questions of each file, in turn, without their choices."""
    rows = []
    for file in files:
        with file.open(encoding="utf-8", newline="") as lines:
            rows.append([row["prompt"].split("\n")[0] for row in csv.DictReader(lines)])
    turns = [row[n] for n in range(N_GENERAL) for row in rows if n < len(row)]
    return [Item(text, "assistant", OUT_OF_SCOPE) for text in turns[:N_GENERAL]]


def body(model: str, case: Case, **fields: object) -> Json:
    messages = [{"role": "user", "content": case.item.text}]
    given: Json = {"model": model, "messages": messages, "max_tokens": MAX_TOKENS, "temperature": 0}
    return given | {"metadata": {"domain": case.item.domain}} | fields


def cpu_s(daemon: Served) -> float:
    """Processor seconds of the daemon and of its workers so far."""
    process = psutil.Process(daemon.process.pid)
    every = [process, *process.children(recursive=True)]
    return sum(sum(one.cpu_times()[:2]) for one in every)


def outcome_of(case: Case, answer: Json, small: str) -> Outcome:
    told = answer["edgeagent"]["confidence"]
    kept = answer["model"] == small
    best = told["intent"] == case.item.intent and case.item.intent != OUT_OF_SCOPE
    right = (kept and best) if case.item.intent != OUT_OF_SCOPE else not kept
    return Outcome(kept, right, best, told["probability"], told["margin"])


def asked(
    daemon: Served, bodies: Sequence[Json], n_clients: int
) -> tuple[list[Json], float, float]:
    """The answers, processor seconds of a request, and the median latency in ms."""
    before = cpu_s(daemon)
    answers, took_s, _ = asyncio.run(exchanged(daemon.url, CHAT, bodies, n_clients))
    return answers, (cpu_s(daemon) - before) / len(bodies), 1e3 * statistics.median(took_s)


def share(values: object) -> float:
    found = list(values)  # type: ignore[call-overload]
    return sum(found) / len(found) if found else float("nan")


def token_margins(daemon: Served, model: str, some: Sequence[Case]) -> dict[str, list[float]]:
    """The mean lead of the first tokens of the chat model, by class."""
    bodies = [
        body(model, case, max_tokens=TRIAL_TOKENS, logprobs=True, top_logprobs=2) for case in some
    ]
    answers, _, _ = asked(daemon, bodies, 1)
    found: dict[str, list[float]] = {kind: [] for kind in CLASSES}
    for case, answer in zip(some, answers, strict=True):
        tokens = answer["choices"][0]["logprobs"]["content"]
        leads = [t["top_logprobs"][0]["logprob"] - t["top_logprobs"][1]["logprob"] for t in tokens]
        if leads:
            found[case.kind].append(statistics.mean(leads))
    return found


# ---- the measurement


@dataclass
class Counted:
    """What was counted of one class: texts, those that the small model kept and that were right, the right
    calls before any threshold and those of them that were handed on, and processor seconds."""

    n: int = 0
    kept: int = 0
    right: int = 0
    best: int = 0
    lost: int = 0
    cpu_s: float = 0.0
    large_s: float = 0.0
    n_large: int = 0

    def add(self, outcome: Outcome) -> None:
        self.n += 1
        self.kept += outcome.kept
        self.right += outcome.right
        self.best += outcome.best
        self.lost += outcome.best and not outcome.kept

    def row(self, kind: str) -> Json:
        return {
            "class": kind,
            "n": self.n,
            "kept": self.kept / self.n,
            "right": self.right / self.n,
            "best": self.best / self.n,
            "lost": self.lost / self.best if self.best else float("nan"),
            "cpu_s": self.cpu_s / self.n,
            "large_cpu_s": self.large_s / self.n_large if self.n_large else float("nan"),
        }


def ask_class(daemon: Served, group: Sequence[Case], found: Counted, args: Any) -> None:
    bodies = [body("auto", case, max_tokens=args.max_tokens) for case in group]
    answers, small_s, _ = asked(daemon, bodies, args.clients)
    for case, answer in zip(group, answers, strict=True):
        found.add(outcome_of(case, answer, args.small))
    found.cpu_s += small_s * len(group)


def measured(args: Any) -> Json:
    every = cases(args.data, args.every, args.items)
    if not every:
        raise SystemExit("no data set is there: name their folder with --data")
    some = [
        case
        for kind in CLASSES
        if args.sample and (group := [case for case in every if case.kind == kind])
        for case in group[:: max(1, len(group) // args.sample)][: args.sample]
    ]
    counted = {kind: Counted() for kind in CLASSES}
    if args.counts is not None and args.counts.is_file():
        counted = {
            kind: Counted(**one) for kind, one in json.loads(args.counts.read_text()).items()
        }
    margins: dict[str, list[float]] = {}
    settings: Json = {
        "shipped_models_dir": str(shipped_models_dir()),
        "default_model": args.small,
        "routing.candidates": [args.small, args.large],
        "routing.scope.gate": args.gate != "off",
        "routing.scope.vectors": args.gate == "vectors",
    }
    with ExitStack() as stack:
        gates = None
        if args.held_out is not None and args.gate != "off":
            gates = held_out_gates(args.held_out, args.data, args.small, stack)
        for number in range(N_FOLDS) if gates is not None else [0]:
            if args.part not in (None, number):
                continue
            part, group = settings, every
            if gates is not None:
                part = settings | {"state_dir": str(gates(number))}
                group = [case for case in every if fold_of(case.item.text) == number]
            with serving(args.models_dir, **part) as daemon:
                daemon.wait_until_ready()
                warm_up(daemon, group, args)
                for kind in CLASSES:
                    if mine := [case for case in group if case.kind == kind]:
                        ask_class(daemon, mine, counted[kind], args)
                    sample = [c for c in some if c.kind == kind and c in group]
                    if sample:
                        bodies = [body(args.large, c, max_tokens=args.max_tokens) for c in sample]
                        _, large_s, _ = asked(daemon, bodies, args.clients)
                        counted[kind].large_s += large_s * len(sample)
                        counted[kind].n_large += len(sample)
                if args.margins and number == 0:
                    margins = token_margins(daemon, args.large, some)
            print(f"part {number} is done", flush=True)
    if args.counts is not None:
        args.counts.write_text(json.dumps({kind: vars(one) for kind, one in counted.items()}))
    rows = [one.row(kind) for kind, one in counted.items() if one.n]
    return {"classes": rows, "token_margins": margins}


def warm_up(daemon: Served, group: Sequence[Case], args: Any) -> None:
    """Load the models, and the encoder, which the first text in doubt has loaded."""
    asked(daemon, [body(args.large, group[0], max_tokens=1)], 1)
    for case in [*group[::-1], *group][:N_TRIES]:
        (answer,), _, _ = asked(daemon, [body("auto", case, max_tokens=1, route_trace=True)], 1)
        if args.gate != "vectors" or "vector near" in json.dumps(answer["edgeagent"]["routing"]):
            return
    print("no text was in doubt before the measurement: the encoder is loaded within it")


def show(found: Json) -> None:
    print(
        "\n| class | texts | kept small | right | right calls lost | CPU s | large alone | share |"
    )
    print("|---|---|---|---|---|---|---|---|")
    rows = found["classes"]
    for row in rows:
        lost = f"{100 * row['lost']:.1f}%" if row["lost"] == row["lost"] else ""
        print(
            f"| {row['class']} | {row['n']} | {100 * row['kept']:.1f}% | {100 * row['right']:.1f}% | "
            f"{lost} | {row['cpu_s']:.3f} | {row['large_cpu_s']:.3f} | "
            f"{row['cpu_s'] / row['large_cpu_s']:.2f} |"
        )
    n = sum(row["n"] for row in rows)
    small, large = (
        sum(row["n"] * row[name] for row in rows) / n for name in ("cpu_s", "large_cpu_s")
    )
    kept = sum(row["n"] * row["kept"] for row in rows) / n
    print(
        f"| all | {n} | {100 * kept:.1f}% | | | {small:.3f} | {large:.3f} | {small / large:.2f} |"
    )
    if not found["token_margins"]:
        return
    print(f"\nmean lead of the first {TRIAL_TOKENS} tokens of the chat model, nats:")
    for kind, leads in found["token_margins"].items():
        if len(leads) > 1:
            tens = statistics.quantiles(leads, n=10)
            below = share(lead < 1.0 for lead in leads)
            print(
                f"  {kind:<13} n={len(leads):<4} p10 {tens[0]:.2f}  median {tens[4]:.2f}  p90 {tens[8]:.2f}  "
                f"below 1.0: {100 * below:.0f}%"
            )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--small", default="edge-assistant-s")
    parser.add_argument("--large", default="smollm2-135m-instruct", help="must be installed")
    parser.add_argument("--models-dir", type=Path, default=Path(".cache/models"))
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument(
        "--items", type=Path, metavar="FILE",
        help="other texts than the validation's: JSON lines with `text`, `domain` (assistant, service) and "
        "`intent` (`oos`: out of scope)",
    )  # fmt: skip
    parser.add_argument("--every", type=int, default=1, help="only every so-manieth text")
    parser.add_argument("--sample", type=int, default=60, help="texts of a class for the large one")
    parser.add_argument("--max-tokens", type=int, default=MAX_TOKENS, help="of an answer")
    parser.add_argument("--margins", action="store_true", help="margins of the chat model, too")
    parser.add_argument(
        "--gate",
        choices=["off", "words", "vectors"],
        default="vectors",
        help="scope gate of the assistant: none, by words alone, as by default",
    )
    parser.add_argument(
        "--held-out", type=Path, metavar="DIR",
        help="ask each fifth of the texts of a gate that was made without it, from what `forge scope --work "
        "DIR` has computed",
    )  # fmt: skip
    parser.add_argument("--part", type=int, help="with --held-out: only this fifth, 0 to 4")
    parser.add_argument("--counts", type=Path, metavar="FILE", help="add up runs of parts there")
    parser.add_argument("--clients", type=int, default=1)
    parser.add_argument("--decisions", action="store_true", help="only what a decision costs")
    parser.add_argument("--json", type=Path, help="write all figures there")
    args = parser.parse_args()
    if min(args.every, args.clients, args.max_tokens) < 1 or args.sample < 0:
        raise SystemExit("--every, --clients and --max-tokens are 1 or more, --sample is 0 or more")
    load = os.getloadavg()[0]
    print(f"{describe()}; load {load:.1f} before; {time.strftime('%Y-%m-%d')}")
    if args.decisions:
        print(json.dumps(decision_ms(args.data)))
        return
    found = measured(args)
    show(found)
    if args.json is not None:
        args.json.write_text(json.dumps(found))


if __name__ == "__main__":
    main()
