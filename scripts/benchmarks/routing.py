"""Routing from end to end: an assistant model first, a chat model for what it leaves open.

    scripts/bench routing [--data ../shared/data] [--every 1] [--sample 60] [--json FILE]
    scripts/bench routing --decisions        what a decision costs: rules, budgets, a policy, exploration

Texts of CLINC150's validation split with those out of scope, of Banking77 (every tenth, which the assistant
was not trained on), and 200 questions of MMLU as general ones go to `auto`. Shown per class: the share that
the small model keeps, how often its call is right, what is handed on, and the processor seconds of a request
beside those of the large model alone.

Below: which score of the first answer tells texts in scope from others. Thresholds are chosen on one half of
the items and reported on the other. Data sets that are absent are left out with a line that says so.
"""

from __future__ import annotations

import argparse
import asyncio
import csv
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from edgeagent.catalog.model_library import shipped_models_dir
from edgeagent.forge.datasets import OUT_OF_SCOPE
from edgeagent.routing.auto_router import AutoRouter
from edgeagent.routing.route_request import ModelState, RouteRequest, RouteState, window
from edgeagent.routing.training.outcome_files import pair_of, read_outcomes
from edgeagent.routing.training.trainer import TextMatrix, policy_file, train, write_policy
from edgeagent.settings.routing import RoutingSettings
from scripts.benchmarks.assistant import CHAT, Item, validation
from scripts.benchmarks.exchange import Json, exchanged
from scripts.benchmarks.machine import describe
from scripts.benchmarks.served import Served, serving

IN_SCOPE, OUTSIDE, SERVICE, GENERAL = "in scope", "out of scope", "banking", "general"
CLASSES = (IN_SCOPE, OUTSIDE, SERVICE, GENERAL)
N_GENERAL = 200
MAX_TOKENS = 32
TRIAL_TOKENS = 16
LOST = (0.005, 0.01, 0.02)  # shares of texts in scope that a threshold may hand on


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


def cases(data: Path, every: int) -> list[Case]:
    """The texts of all classes whose data sets are there."""
    found: list[Case] = []
    if (data / "clinc150").is_dir() and (data / "banking77").is_dir():
        for item in validation(data):
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


# ---- scores and thresholds


def area(outside: Sequence[float], inside: Sequence[float]) -> float:
    """The chance that a text outside has a lower score than one inside."""
    pairs = [(a < b) + 0.5 * (a == b) for a in outside for b in inside]
    return sum(pairs) / len(pairs) if pairs else float("nan")


def threshold_for(inside: Sequence[float], lost: float) -> float:
    """The score below which at most this share of the texts in scope is."""
    ordered = sorted(inside)
    return ordered[int(lost * len(ordered))]


def separation(
    pairs: Sequence[tuple[Case, Outcome]], score: Callable[[Outcome], float]
) -> list[Json]:
    """For each share that may be lost: the threshold of the even items, and what it does to the odd ones.

    Lost is a right call that is handed on.
    """
    halves = [pairs[half::2] for half in (0, 1)]
    inside, outside = (
        [
            [
                score(o)
                for c, o in half
                if (o.best and c.kind == IN_SCOPE if is_in else c.kind == OUTSIDE)
            ]
            for half in halves
        ]
        for is_in in (True, False)
    )
    rows = []
    for lost in LOST:
        bound = threshold_for(inside[0], lost)
        rows.append(
            {
                "allowed": lost,
                "threshold": bound,
                "lost": share(one < bound for one in inside[1]),
                "outside_handed_on": share(one < bound for one in outside[1]),
                "auroc": area(outside[1], inside[1]),
            }
        )
    return rows


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


# ---- what a decision costs


def decision_ms(data: Path) -> Json:
    """Milliseconds of a decision over questions of MMLU, with 20 rules, a policy, budgets and exploration."""
    files = sorted((data / "routellm" / "mmlu").glob("*.csv"))
    if not files:
        raise SystemExit(f"SKIPPED: {data} has no routellm/mmlu")
    pair = pair_of(read_outcomes(files[:4]), None, None, None)
    texts = TextMatrix.of(pair.texts)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "route.policy")
        trained = train(texts, pair.small, pair.large)
        write_policy(policy_file(("small", "large"), texts, trained, 0.3), path)
        rules = [
            {
                "id": f"rule{n}",
                "match": {
                    "keywords_any": [f"never{n}", f"nor this {n}"],
                    "regex": f"[0-9]{{{n + 5}}}x",
                },
                "route_to": "large",
            }
            for n in range(20)
        ]
        settings = RoutingSettings.model_validate(
            {
                "candidates": ["small", "large"], "policy": path, "rules": rules, "explore": 0.05,
                "budgets": {"tokens_per_key_day": 1000, "latency_s": 5, "max_queue": 4},
            }
        )  # fmt: skip
        router = AutoRouter(settings)
    state = RouteState({name: ModelState(name) for name in ("small", "large")})
    took: list[float] = []
    computed: list[float] = []  # without what other programs took of the core
    for number, text in enumerate(pair.texts):
        request = RouteRequest(
            "auto", text=window(text), n_chars=len(text), request_id=f"req_{number}"
        )
        started, own = time.perf_counter(), time.thread_time()
        router.route(request, state)
        computed.append(1e3 * (time.thread_time() - own))
        took.append(1e3 * (time.perf_counter() - started))
    chars = statistics.median(len(text) for text in pair.texts)
    found: Json = {"n": len(took), "median_chars": chars}
    for name, values in (("wall_ms", took), ("processor_ms", computed)):
        cuts = statistics.quantiles(values, n=100)
        found[name] = {"p50": cuts[49], "p95": cuts[94], "p99": cuts[98], "max": max(values)}
    return found


# ---- the measurement


def measured(daemon: Served, args: argparse.Namespace) -> Json:
    every = cases(args.data, args.every)
    if not every:
        raise SystemExit("no data set is there: name their folder with --data")
    some = [
        case
        for kind in CLASSES
        if (group := [case for case in every if case.kind == kind])
        for case in group[:: max(1, len(group) // args.sample)][: args.sample]
    ]
    asked(daemon, [body(model, some[0]) for model in ("auto", args.large)], 1)  # loaded
    rows: list[Json] = []
    pairs: list[tuple[Case, Outcome]] = []
    for kind in CLASSES:
        group = [case for case in every if case.kind == kind]
        if not group:
            continue
        answers, small_s, small_ms = asked(daemon, [body("auto", c) for c in group], args.clients)
        found = [outcome_of(c, a, args.small) for c, a in zip(group, answers, strict=True)]
        pairs += zip(group, found, strict=True)
        sample = [case for case in some if case.kind == kind]
        _, large_s, large_ms = asked(daemon, [body(args.large, c) for c in sample], args.clients)
        rows.append(
            {
                "class": kind,
                "n": len(group),
                "kept": share(o.kept for o in found),
                "right": share(o.right for o in found),
                "best": share(o.best for o in found),
                "lost": share(not o.kept for o in found if o.best),
                "cpu_s": small_s,
                "large_cpu_s": large_s,
                "median_ms": small_ms,
                "large_median_ms": large_ms,
            }
        )
        print(json.dumps(rows[-1]), flush=True)
    scores = {
        "probability": separation(pairs, lambda o: o.probability),
        "margin": separation(pairs, lambda o: o.margin),
    }
    return {
        "classes": rows,
        "thresholds": scores,
        "token_margins": token_margins(daemon, args.large, some) if args.sample else {},
    }


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
    print(
        "\n| score | lost at most | threshold | lost, other half | out of scope handed on | AUROC |"
    )
    print("|---|---|---|---|---|---|")
    for name, lines in found["thresholds"].items():
        for line in lines:
            print(
                f"| {name} | {100 * line['allowed']:.1f}% | {line['threshold']:.3f} | "
                f"{100 * line['lost']:.1f}% | {100 * line['outside_handed_on']:.0f}% | {line['auroc']:.3f} |"
            )
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
    parser.add_argument("--every", type=int, default=1, help="only every so-manieth text")
    parser.add_argument("--sample", type=int, default=60, help="texts of a class for the large one")
    parser.add_argument("--clients", type=int, default=1)
    parser.add_argument("--decisions", action="store_true", help="only what a decision costs")
    parser.add_argument("--json", type=Path, help="write all figures there")
    args = parser.parse_args()
    if min(args.every, args.sample, args.clients) < 1:
        raise SystemExit("--every, --sample and --clients are 1 or more")
    load = os.getloadavg()[0]
    print(f"{describe()}; load {load:.1f} before; {time.strftime('%Y-%m-%d')}")
    if args.decisions:
        print(json.dumps(decision_ms(args.data)))
        return
    settings = {
        "shipped_models_dir": str(shipped_models_dir()),
        "default_model": args.small,
        "routing.candidates": [args.small, args.large],
    }
    with serving(args.models_dir, **settings) as daemon:
        daemon.wait_until_ready()
        found = measured(daemon, args)
    show(found)
    if args.json is not None:
        args.json.write_text(json.dumps(found))


if __name__ == "__main__":
    main()
