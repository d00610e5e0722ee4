"""Replays arrivals against the cost curve of a device: what a policy of chunks would give there.

    scripts/bench simulate [--arrivals FILE] [--costs FILE | --device NAME]

Arrivals are those that `python -m scripts.benchmarks.load URL --record FILE` writes: each client sends its
next request as long after its last answer as it did. Without a file, 8 clients hold dialogues of five turns.
Costs are a state directory's step_costs.json, or a device measured before. The steps are planned by the
functions that the engine uses; a step takes as long as the curve says. No model, no clock.
"""

from __future__ import annotations

import argparse
import json
import statistics
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
from rich.console import Console
from rich.table import Table

from edgeagent.engine.batching.chunk_choice import ChunkChoice
from edgeagent.engine.batching.scheduler import Lane, StepPlan, plan_step
from edgeagent.engine.batching.step_cost import StepCost, StepLoad
from edgeagent.types.engine_config import EngineConfig
from edgeagent.types.step_costs import StepCosts

# SmolLM2-135M. xeon: two threads of one core (2026-11-27). zen4: 2 cores (2026-11-29).
DEVICES: dict[str, dict[int, float]] = {
    "xeon q4_1": {1: 18, 2: 23, 4: 37, 8: 62, 16: 106, 32: 220, 48: 318, 64: 260, 112: 447, 150: 678},
    "xeon q4_0": {1: 17, 2: 20, 4: 29, 8: 47, 16: 68, 32: 128, 48: 197, 64: 123, 112: 219, 150: 286},
    "xeon q8_0": {1: 19, 2: 25, 4: 35, 8: 55, 16: 79, 32: 146, 48: 211, 64: 143, 112: 243, 150: 322},
    "zen4 q4_1": {
        1: 12.1, 2: 16, 4: 26.3, 8: 43.6, 16: 65, 32: 106, 48: 173, 63: 222, 64: 229, 128: 419, 256: 829,
        384: 1277, 512: 1640,
    },
}  # fmt: skip


@dataclass(frozen=True)
class Arrival:
    """A request of a client, so long after the end of its last one (or the begin)."""

    client: int
    gap_s: float
    n_prompt: int
    n_cached: int
    n_output: int


@dataclass(eq=False)
class Simulated:
    """A request in the simulated engine."""

    arrival: Arrival
    sent_s: float
    key: int
    n_past: int = 0
    n_generated: int = 0
    stamps: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.n_past = min(self.arrival.n_cached, self.arrival.n_prompt - 1)

    @property
    def n_pending(self) -> int:
        return 1 if self.is_decoding else self.arrival.n_prompt - self.n_past

    @property
    def is_decoding(self) -> bool:
        return self.n_generated > 0

    def advance(self, n: int, now_s: float) -> bool:
        """Count `n` tokens of a step. True if the answer ends."""
        self.n_past += n
        if self.is_decoding or self.n_past >= self.arrival.n_prompt:
            self.n_generated += 1
            self.stamps.append(now_s)
        return self.n_generated >= self.arrival.n_output


def policies(costs: StepCosts, config: EngineConfig) -> dict[str, ChunkChoice | int]:
    """By name: a choice, which learns from the steps, or a fixed number of tokens."""
    measured = msgspec.structs.replace(config, step_costs=costs)
    found: dict[str, ChunkChoice | int] = {
        "measured curve": ChunkChoice(measured),
        "rate": ChunkChoice(config),
        "all at once": config.n_batch,
        "64 tokens": 64,
        "16 tokens": 16,
    }
    return found


def replay(
    arrivals: list[Arrival], costs: StepCosts, config: EngineConfig, policy: ChunkChoice | int
) -> list[Simulated]:
    """The requests with the times of their tokens."""
    cost = StepCost(costs)
    queues: dict[int, list[Arrival]] = {}
    for arrival in arrivals:
        queues.setdefault(arrival.client, []).append(arrival)
    now_s, number = 0.0, 0
    coming = {client: queue[0].gap_s for client, queue in queues.items()}  # when each sends next
    running: list[Simulated] = []
    waiting: list[Simulated] = []
    done: list[Simulated] = []
    while coming or waiting or running:
        for client, at_s in sorted(coming.items(), key=lambda pair: pair[1]):
            if at_s <= now_s:
                del coming[client]
                number += 1
                waiting.append(Simulated(queues[client].pop(0), at_s, number))
        while waiting and len(running) < config.n_seq:
            running.append(waiting.pop(0))
        if not running:
            now_s = min(coming.values())
            continue
        lanes = [Lane(one.key, one.n_pending, one.is_decoding, one.is_decoding) for one in running]
        limit = policy if isinstance(policy, int) else policy.limit(lanes, running, 1.0)
        plan = plan_step(lanes, config.n_batch, limit)
        now_s = _run(plan, running, cost, policy, now_s)
        for one in [one for one in running if one.n_generated >= one.arrival.n_output]:
            running.remove(one)
            done.append(one)
            client = one.arrival.client
            if queues[client]:
                coming[client] = now_s + queues[client][0].gap_s
    return done


def _run(
    plan: StepPlan,
    running: list[Simulated],
    cost: StepCost,
    policy: ChunkChoice | int,
    now_s: float,
) -> float:
    """Do a step; when it ends."""
    by_key = {one.key: one for one in running}
    work = [(by_key[key], 1) for key in plan.decode] + [(by_key[key], n) for key, n in plan.prefill]
    cells = sum(one.n_past for one, _ in work[: len(plan.decode)])
    visits = sum(n * (one.n_past + n / 2) for one, n in work[len(plan.decode) :])
    load = StepLoad(len(plan.decode), plan.n_prefill, cells, visits / max(1, plan.n_prefill))
    took_s = cost.predict(load)
    if isinstance(policy, ChunkChoice):
        policy.learn(load, took_s)
    for one, n in work:
        one.advance(n, now_s + took_s)
    return now_s + took_s


def figures(done: list[Simulated]) -> dict[str, float]:
    """Tokens per second, time to the first token, gaps between tokens, in seconds."""
    ttft = sorted(one.stamps[0] - one.sent_s for one in done)
    gaps = sorted(b - a for one in done for a, b in zip(one.stamps, one.stamps[1:], strict=False))
    begun, ended = min(one.sent_s for one in done), max(one.stamps[-1] for one in done)
    return {
        "tok_s": sum(one.n_generated for one in done) / (ended - begun),
        "ttft_p50_s": statistics.median(ttft),
        "ttft_p95_s": ttft[min(len(ttft) - 1, int(0.95 * len(ttft)))],
        "gap_p95_s": gaps[int(0.95 * len(gaps))] if gaps else 0.0,
        "gap_max_s": gaps[-1] if gaps else 0.0,
    }


def dialogues() -> list[Arrival]:
    """8 clients, five turns each: a question of 70 tokens behind the dialogue so far, an answer of 40."""
    return [
        Arrival(client, 0.002 * client if turn == 0 else 0.003, 110 * turn + 70, 110 * turn, 40)
        for client in range(8)
        for turn in range(5)
    ]


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="scripts/bench simulate",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--arrivals", type=Path, metavar="FILE")
    parser.add_argument(
        "--costs", type=Path, metavar="FILE", help="a step_costs.json: its last one"
    )
    parser.add_argument("--device", choices=DEVICES, default="xeon q4_1")
    parser.add_argument("--n-seq", type=int, default=8)
    parser.add_argument("--budget-ms", type=float, default=150.0)
    args = parser.parse_args()
    if args.costs is not None:
        kept = msgspec.json.decode(args.costs.read_bytes(), type=dict[str, StepCosts])
        costs = list(kept.values())[-1]
    else:
        costs = StepCosts(step_s={n: ms / 1e3 for n, ms in DEVICES[args.device].items()})
    arrivals = dialogues()
    if args.arrivals is not None:
        arrivals = [Arrival(**json.loads(line)) for line in args.arrivals.read_text().splitlines()]
    config = EngineConfig(
        model_id="simulated", path="", n_seq=args.n_seq, step_budget_ms=args.budget_ms
    )
    table = Table("policy", "tokens/s", "TTFT p50, s", "TTFT p95, s", "gap p95, ms", "longest, ms")
    for name, policy in policies(costs, config).items():
        found = figures(replay(arrivals, costs, config, policy))
        table.add_row(
            name, f"{found['tok_s']:.1f}", f"{found['ttft_p50_s']:.2f}", f"{found['ttft_p95_s']:.2f}",
            f"{1e3 * found['gap_p95_s']:.0f}", f"{1e3 * found['gap_max_s']:.0f}",
        )  # fmt: skip
    Console(width=110).print(table)
