"""Replays arrivals on the cost curve of a device: what a policy would give there.

    scripts/bench simulate [--workload NAME | --arrivals FILE] [--costs FILE | --device NAME]

Arrivals are those that `python -m scripts.benchmarks.load URL --record FILE` writes: each client sends its
next request as long after its last answer as it did. Without a file, 8 clients hold dialogues of five turns.
Costs are a state directory's step_costs.json, or a device measured before. The engine is the one that serves,
with its queue, its cache, its choices and its threads for prompts; a runner without weights takes as long for
a step as the curve says, by a clock of its own (`simulated_device`).
"""

from __future__ import annotations

import argparse
import json
import statistics
from array import array
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
from rich.console import Console
from rich.table import Table

from edgeagent.engine.batching.arrival_pause import ArrivalPause
from edgeagent.engine.batching.chunk_choice import ChunkChoice
from edgeagent.engine.batching.engine import Engine
from edgeagent.engine.batching.sequence import Request, Sequence
from edgeagent.engine.llama.sampler import Sampler
from edgeagent.engine.output.plain_decoder import PlainDecoder
from edgeagent.types.answer import TokenChunk
from edgeagent.types.engine_config import EngineConfig
from edgeagent.types.generation import GenerateSpec
from edgeagent.types.prompt import Prompt
from edgeagent.types.sampling import Sampling
from edgeagent.types.step_costs import StepCosts
from scripts.benchmarks.simulated_device import N_VOCAB, SimulatedRunner, answer_tokens
from scripts.benchmarks.simulated_load import LOADS, Arrival

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


# Rendering and tokenizing a prompt, one after the other.
PREPARE_S = 0.002


@dataclass(frozen=True)
class Policy:
    """Settings of an engine that differ, and a fixed number of tokens for chunks of prompts, if any."""

    settings: dict[str, object]
    chunk: int | None = None
    is_measured: bool = True


# Of chunks: how many tokens of a prompt a step takes along, all of them in turn with answers.
CHUNKS = {
    "measured curve": Policy({"prompts_beside": False}),
    "rate": Policy({"prompts_beside": False}, is_measured=False),
    "all at once": Policy({"prompts_beside": False}, chunk=1 << 20),
    "64 tokens": Policy({"prompts_beside": False}, chunk=64),
    "16 tokens": Policy({"prompts_beside": False}, chunk=16),
}
POLICIES = {"threads of their own": Policy({})} | CHUNKS


class FixedChunk(ChunkChoice):
    """Chunks of one size."""

    def __init__(self, config: EngineConfig, chunk: int) -> None:
        super().__init__(config)
        self._chunk = chunk

    def limit(self, *_: object) -> int:
        return self._chunk


@dataclass(eq=False)
class Asked:
    """A request of the replay."""

    arrival: Arrival
    sent_s: float
    tokens: array[int]
    prepared_s: float = 0.0
    stamps: list[float] = field(default_factory=list)

    @property
    def n_generated(self) -> int:
        return len(self.stamps)


class Replay:
    """The requests of a load on a simulated device. `done` has the times of their tokens."""

    def __init__(
        self, arrivals: list[Arrival], costs: StepCosts, config: EngineConfig, policy: Policy
    ) -> None:
        config = msgspec.structs.replace(
            config, step_costs=costs if policy.is_measured else None, stream_interval_ms=0,
            **policy.settings,
        )  # fmt: skip
        runner = SimulatedRunner(config, costs)
        self._machine = runner.machine
        self.done: list[Asked] = []
        self._open: dict[int, Asked] = {}
        self._queues: dict[int, list[Arrival]] = {}
        self._histories: dict[int, array[int]] = {}
        for arrival in arrivals:
            self._queues.setdefault(arrival.client, []).append(arrival)
        self._preparing: list[Asked] = []
        self._ready_s = 0.0  # when the last prompt is prepared
        self._n_unlike = 0
        self._coming = {client: queue[0].gap_s for client, queue in self._queues.items()}
        self._engine = Engine(
            config, runner, config.n_ctx, emit=self._emit, refuse=self._refuse,
            forget=lambda request_id: None, clock=self._machine.clock,
        )  # fmt: skip
        if policy.chunk is not None:
            self._engine.chunks = FixedChunk(config, policy.chunk)
        self._pause = ArrivalPause(lambda: bool(self._preparing), self._machine.clock)

    def run(self) -> list[Asked]:
        while self._coming or self._preparing or not self._engine.is_idle:
            self._arrive()
            if self._engine.is_idle:
                self._machine.now_s = self._next_event_s()
                continue
            if wait_s := self._pause.seconds(may_wait=self._engine.has_only_prompts):
                now_s = self._machine.now_s
                self._machine.wait(max(1e-6, min(wait_s, self._next_event_s() - now_s)))
                continue
            before_s = self._machine.now_s
            self._engine.step()
            if self._machine.now_s == before_s:
                self._machine.now_s += 1e-5
        return self.done

    def _next_event_s(self) -> float:
        ready = (asked.prepared_s for asked in self._preparing)
        return min([*self._coming.values(), *ready], default=float("inf"))

    def _arrive(self) -> None:
        """Send what is due, and give the engine what is prepared."""
        now_s = self._machine.now_s
        for client, at_s in sorted(self._coming.items(), key=lambda pair: pair[1]):
            if at_s <= now_s:
                del self._coming[client]
                asked = self._asked(self._queues[client].pop(0), at_s)
                self._ready_s = asked.prepared_s = max(self._ready_s, at_s) + PREPARE_S
                self._preparing.append(asked)
        while self._preparing and self._preparing[0].prepared_s <= now_s:
            self._submit(self._preparing.pop(0))

    def _asked(self, arrival: Arrival, sent_s: float) -> Asked:
        """A request whose first tokens are those of its client's last one and its answer, or of all clients'
        first ones, as far as it found them cached; its others are like no other's."""
        history = self._histories.get(arrival.client, array("i"))
        n_shared = min(arrival.n_cached, arrival.n_prompt - 1)
        common = array("i", range(100, 100 + n_shared))
        tokens = history[:n_shared] if len(history) >= n_shared else common
        n_own = arrival.n_prompt - n_shared
        first = 1_000_000 + self._n_unlike
        self._n_unlike += n_own
        return Asked(arrival, sent_s, tokens + array("i", range(first, first + n_own)))

    def _submit(self, asked: Asked) -> None:
        number = len(self.done) + len(self._open) + 1
        spec = GenerateSpec(prompts=[Prompt(tokens=[])], sampling=Sampling(temperature=0))
        request = Request(number, spec, asked.sent_s)
        tokens, n_prompt = array("i", asked.tokens), len(asked.tokens)
        sampler = Sampler(spec.sampling, N_VOCAB, [], 0)
        decoder = PlainDecoder(
            tokens, n_prompt, asked.arrival.n_output, sampler, [], ignore_eos=True
        )
        self._open[number] = asked
        self._pause.arrive()
        self._engine.submit([Sequence(request, 0, decoder)])

    def _emit(self, chunks: list[tuple[int, TokenChunk]]) -> None:
        now_s = self._machine.now_s
        for number, chunk in chunks:
            asked = self._open[number]
            asked.stamps += [now_s] * len(chunk.text)
            if chunk.finish is None:
                continue
            del self._open[number]
            self.done.append(asked)
            client = asked.arrival.client
            self._histories[client] = asked.tokens + answer_tokens(asked.n_generated)
            if self._queues[client]:
                self._coming[client] = now_s + self._queues[client][0].gap_s

    def _refuse(self, request_id: int, error: Exception) -> None:
        raise SystemExit(f"The simulated engine refused a request: {error}")


def figures(done: list[Asked]) -> dict[str, float]:
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


def device_costs(name: str) -> StepCosts:
    """Those of a device measured before."""
    step_s = {n: ms / 1e3 for n, ms in DEVICES[name].items()}
    return StepCosts(step_s=step_s, n_threads=2, n_heads=9)


def last_costs(path: Path) -> StepCosts:
    """The last ones of a step_costs.json."""
    return list(msgspec.json.decode(path.read_bytes(), type=dict[str, StepCosts]).values())[-1]


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="scripts/bench simulate",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--arrivals", type=Path, metavar="FILE")
    parser.add_argument("--workload", choices=LOADS, default="dialogues")
    parser.add_argument(
        "--costs", type=Path, metavar="FILE", help="a step_costs.json: its last one"
    )
    parser.add_argument("--device", choices=DEVICES, default="xeon q4_1")
    parser.add_argument("--n-seq", type=int, default=8)
    parser.add_argument("--n-ctx", type=int, default=16384)
    parser.add_argument("--budget-ms", type=float, default=150.0)
    args = parser.parse_args()
    costs = last_costs(args.costs) if args.costs is not None else device_costs(args.device)
    arrivals = LOADS[args.workload]()
    if args.arrivals is not None:
        arrivals = [Arrival(**json.loads(line)) for line in args.arrivals.read_text().splitlines()]
    config = simulated_config(costs, args.n_seq, args.n_ctx, step_budget_ms=args.budget_ms)
    table = Table("policy", "tokens/s", "TTFT p50, s", "TTFT p95, s", "gap p95, ms", "longest, ms")
    for name, policy in POLICIES.items():
        found = figures(Replay(arrivals, costs, config, policy).run())
        table.add_row(
            name, f"{found['tok_s']:.1f}", f"{found['ttft_p50_s']:.2f}", f"{found['ttft_p95_s']:.2f}",
            f"{1e3 * found['gap_p95_s']:.0f}", f"{1e3 * found['gap_max_s']:.0f}",
        )  # fmt: skip
    Console(width=110).print(table)


def simulated_config(costs: StepCosts, n_seq: int, n_ctx: int, **settings: object) -> EngineConfig:
    return EngineConfig(
        model_id="simulated", path="", n_seq=n_seq, n_ctx=n_ctx, n_threads=max(1, costs.n_threads),
        adapts_threads=False, **({"prompt_cells": 2048, "answer_cells": 1024} | settings),
    )  # fmt: skip
