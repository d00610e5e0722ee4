"""`scripts/bench policies`: five policies on a daemon and in the simulator, and whether both rank them alike.

Policies are settings that a user can change. A daemon with each of them runs all the time, and one at a time
has work: clients that hold dialogues while others send long texts. The arrivals of the first round are
replayed by the engine on a simulated device (`scripts/bench simulate`), with the step costs that the daemons
have measured on this one. Pairs of policies that the rounds put in different orders are counted apart: the
measurement does not decide them. --replay FILE simulates a kept measurement again. Loopback only.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import shutil
import statistics
import sys
import tempfile
import time
from itertools import combinations
from pathlib import Path
from typing import Any

import httpx
from rich.console import Console
from rich.table import Table

from scripts.benchmarks import engine, load, machine
from scripts.benchmarks.engine import MODEL
from scripts.benchmarks.served import serving, serving_measured
from scripts.benchmarks.simulate import Policy, Replay, figures, last_costs, simulated_config
from scripts.benchmarks.simulated_load import Arrival
from tests.conftest import CACHE

IN_TURN = {"prompts_beside": False}
POLICIES: dict[str, dict[str, Any]] = {
    "as shipped": {},
    "prompts in turn": IN_TURN,
    "in turn, steps of 20 ms": IN_TURN | {"step_budget_ms": 20.0},
    "in turn, steps of 2 s": IN_TURN | {"step_budget_ms": 2000.0},
    "two sequences": {"n_seq": 2},
}
# What is compared, and whether more of it is better.
FIGURES = {"tok_s": True, "ttft_p50_s": False, "ttft_p95_s": False, "gap_p95_s": False}
TITLES = {
    "tok_s": "tokens/s", "ttft_p50_s": "TTFT p50, s", "ttft_p95_s": "TTFT p95, s",
    "gap_p95_s": "gaps p95, s",
}  # fmt: skip
N_CTX = 16384
N_SEQ = 8


async def mixed_load(url: str, salt: int, arrivals: Path) -> dict[str, float]:
    """Figures of five clients with dialogues of three turns, and two with a long text each."""
    loads = [("dialogue", 5, 3, 32), ("long", 2, 1, 32)]
    started = time.perf_counter()
    clients = []
    for workload, n_clients, n_requests, max_tokens in loads:
        args = argparse.Namespace(
            workload=workload, requests=n_requests, max_tokens=max_tokens, salt=salt, shared=3,
            model=None, on_failure="end",
        )  # fmt: skip
        clients += [load.client(httpx.URL(url), args, k) for k in range(n_clients)]
    groups = await asyncio.gather(*clients)
    load.record(arrivals, groups, started)
    results = [result for group in groups for result in group]
    found = load.latencies(results)
    ended = max(result["stamps"][-1] for result in results)
    return {
        "tok_s": sum(result["n"] for result in results) / (ended - started),
        "ttft_p50_s": found["ttft_p50_s"] or 0.0,
        "ttft_p95_s": found["ttft_p95_s"] or 0.0,
        "gap_p95_s": found["itl_p95_s"] or 0.0,
    }


def measured(args: argparse.Namespace) -> dict[str, Any]:
    """The figures of each policy in each round, the arrivals of the first round, and the step costs."""
    common = {
        "n_ctx": N_CTX,
        "n_seq": N_SEQ,
        "n_threads": args.threads,
        "default_model": args.model,
    }
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        state = folder / "measured"
        state.mkdir()
        with serving_measured(args.models_dir, str(state), **common) as served:
            served.wait_until_ready()
        servers = {}
        for number, (name, policy) in enumerate(POLICIES.items()):
            own = folder / str(number)
            own.mkdir()
            shutil.copy(state / "step_costs.json", own)
            settings = common | {
                key if key in common else f"engine.{key}": v for key, v in policy.items()
            }
            servers[name] = stack.enter_context(
                serving(args.models_dir, **settings, state_dir=str(own))
            )
        for served in servers.values():
            served.wait_until_ready()
            engine.load(served.url, max_tokens=4, salt=9000)
        quiet = machine.Quiet()
        rounds: dict[str, list[dict[str, float]]] = {name: [] for name in POLICIES}
        arrivals = folder / "arrivals"
        for n_round in range(args.rounds):
            names = list(POLICIES) if n_round % 2 == 0 else list(POLICIES)[::-1]
            for name in names:
                is_first = n_round == 0 and name == names[0]
                file = arrivals if is_first else folder / "others"
                found = asyncio.run(mixed_load(servers[name].url, 100 * n_round, file))
                rounds[name].append(found)
                print(f"round {n_round}, {name}: {found['tok_s']:.1f} tokens/s", file=sys.stderr)
        return {
            "rounds": rounds,
            "others": quiet.others(),
            "arrivals": [json.loads(line) for line in arrivals.read_text().splitlines()],
            "costs": json.loads((state / "step_costs.json").read_text()),
        }


def simulated(found: dict[str, Any]) -> dict[str, dict[str, float]]:
    """The figures of each policy on a device with the measured costs."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "costs.json")
        path.write_text(json.dumps(found["costs"]))
        costs = last_costs(path)
    arrivals = [Arrival(**one) for one in found["arrivals"]]
    config = simulated_config(costs, N_SEQ, N_CTX)
    return {
        name: figures(Replay(arrivals, costs, config, Policy(policy)).run())
        for name, policy in POLICIES.items()
    }


def ranking(values: dict[str, float], *, more_is_better: bool) -> list[str]:
    """The names, best first."""
    return sorted(values, key=lambda name: values[name], reverse=more_is_better)


def undecided(rounds: dict[str, list[dict[str, float]]], key: str) -> set[frozenset[str]]:
    """Pairs of policies that some rounds put in one order and others in the other."""
    found = set()
    for a, b in combinations(rounds, 2):
        pairs = zip(rounds[a], rounds[b], strict=True)
        if len({of_a[key] > of_b[key] for of_a, of_b in pairs}) > 1:
            found.add(frozenset((a, b)))
    return found


def discords(one: list[str], other: list[str]) -> set[frozenset[str]]:
    """Pairs that two rankings have in different orders."""
    return {frozenset((a, b)) for a, b in combinations(one, 2) if other.index(a) > other.index(b)}


def report(found: dict[str, Any]) -> None:
    rounds, in_simulation = found["rounds"], simulated(found)
    medians = {
        name: {key: statistics.median(one[key] for one in ones) for key in FIGURES}
        for name, ones in rounds.items()
    }
    table = Table("policy", *(f"{title}: measured, simulated" for title in TITLES.values()))
    for name, ones in medians.items():
        table.add_row(
            name, *(f"{ones[key]:.2f}, {in_simulation[name][key]:.2f}" for key in FIGURES)
        )
    console = Console(width=140)
    console.print(table)
    for key, more_is_better in FIGURES.items():
        real, virtual = (
            ranking({name: ones[key] for name, ones in of.items()}, more_is_better=more_is_better)
            for of in (medians, in_simulation)
        )
        wrong, open_pairs = discords(real, virtual), undecided(rounds, key)
        console.print(f"{TITLES[key]}: {'equal' if not wrong else 'not equal'}")
        console.print(f"  measured:  {' > '.join(real)}\n  simulated: {' > '.join(virtual)}")
        if wrong:
            console.print(
                f"  {len(wrong)} of 10 pairs differ; of those the rounds do not decide "
                f"{len(wrong & open_pairs)} (of {len(open_pairs)} undecided)"
            )


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="scripts/bench policies",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--models-dir", type=Path, default=CACHE)
    parser.add_argument("--model", default=MODEL)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--keep", type=Path, metavar="FILE", help="write what was measured")
    parser.add_argument("--replay", type=Path, metavar="FILE", help="measure nothing")
    args = parser.parse_args()
    if args.replay is not None:
        report(json.loads(args.replay.read_text()))
        return
    found = measured(args)
    if args.keep is not None:
        args.keep.write_text(json.dumps(found))
    print(f"{machine.describe()}, others {found['others']:.0%}")
    report(found)
