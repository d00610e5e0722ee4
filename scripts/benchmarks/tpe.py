"""Optuna's TPE against our greedy allocation for mixed precision, on the same number of measurements.

    scripts/bench tpe model-F16.gguf --dir work --text calibration.txt --tune tune.txt --held-out other.txt

Greedy measures what each group of tensors costs when only it is rounded, allocates by that, and measures the
weightiest groups again. TPE searches a weight for each group, of which the same allocation makes types within
the same bytes, and measures each proposal: both have the same types, errors and bytes to choose from.
It gets as many measurements as greedy has used, from nothing (cold), and beginning at greedy's result (warm).
Needs optuna, which is no dependency of edgeagent: `pip install optuna`.
"""

from __future__ import annotations

import argparse
import asyncio
import math
from collections.abc import Mapping
from dataclasses import replace

from edgeagent.catalog.gguf.header import read_header
from edgeagent.optimize.allocation import Allocation, Budget, Option, allocate
from edgeagent.optimize.client import ScoringClient, scoring_worker
from edgeagent.optimize.evaluate import Reference, reference_of
from edgeagent.optimize.imatrix import collect, open_config
from edgeagent.optimize.imatrix_file import read_imatrix
from edgeagent.optimize.journal import Journal
from edgeagent.optimize.mixed_precision import best_allocation
from edgeagent.optimize.proposals import fixed_bytes
from edgeagent.optimize.quantize import planned, predicted_bytes
from edgeagent.optimize.recipe import Recipe
from edgeagent.optimize.sensitivity import (
    PROBE,
    TensorCosts,
    TensorGroup,
    groups_of,
    mean_divergence,
    measure_costs,
)
from edgeagent.optimize.texts import chunks_of
from scripts.benchmarks import machine, precision_options

SEEDS = (1, 2)
WIDTH = 4.0  # weights from exp(-4) to exp(4)


def parsed() -> argparse.Namespace:
    found = precision_options.parser("tpe", __doc__, ctx=128, chunks=(64, 8, 32), together=1)
    found.add_argument("--preset", default="Q4_K_M")
    return found.parse_args()


class Trials:
    """Measures allocations on the tuning text; each is kept in the journal."""

    def __init__(self, client: ScoringClient, tuning: Reference, journal: Journal) -> None:
        self._client, self._tuning, self._journal = client, tuning, journal

    async def kld(self, allocation: Allocation) -> float:
        key = f"trial {sorted(allocation.kinds.items())} {allocation.plain}"
        values = self._journal.get(key)
        if values is None:
            await self._client.alter(allocation.kinds, plain=allocation.plain)
            values = {"kld": await mean_divergence(self._client, self._tuning)}
            self._journal.add(key, values)
        return values["kld"]


def weighted(
    costs: list[TensorCosts], groups: list[TensorGroup], weights: Mapping[str, float]
) -> dict[str, list[Option]]:
    """The options of all tensors: errors relative to the probe's of the group, times the group's weight."""
    by_name = {one.name: one for one in costs}
    found = {}
    for group in groups:
        total = sum(probed(by_name[n]) for n in group.tensors)
        for name in group.tensors:
            scale = weights[group.name] / total if total else 0.0
            found[name] = [replace(o, cost=o.cost * scale) for o in by_name[name].options]
    return found


def probed(one: TensorCosts) -> float:
    """What a tensor costs in the type of the probe."""
    return next(o.cost for o in one.options if o.kind == PROBE and not o.is_plain)


async def search(
    trials: Trials, costs: list[TensorCosts], groups: list[TensorGroup], max_bytes: int, n_trials: int,
    seed: int, start: Mapping[str, float] | None,
) -> tuple[float, Allocation]:  # fmt: skip
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=seed, multivariate=True))
    if start is not None:
        study.enqueue_trial(dict(start))
    best = (math.inf, Allocation({}))
    for _ in range(n_trials):
        trial = study.ask()
        logs = {g.name: trial.suggest_float(g.name, -WIDTH, WIDTH) for g in groups}
        found = allocate(
            weighted(costs, groups, {n: math.exp(x) for n, x in logs.items()}), max_bytes
        )
        assert found is not None
        kld = await trials.kld(found)
        study.tell(trial, kld)
        best = min(best, (kld, found), key=lambda one: one[0])
    return best


async def run(given: argparse.Namespace) -> None:
    given.dir.mkdir(parents=True, exist_ok=True)
    importance = given.dir / "imatrix.gguf"
    await collect(
        given.model, given.text, importance, n_ctx=given.ctx, max_chunks=given.text_chunks,
        n_threads=given.threads, special=given.special,
    )  # fmt: skip
    header = read_header(given.model)
    columns = {n: c.tobytes() for n, c in read_imatrix(importance).columns().items()}
    (types,) = planned(given.model, [Recipe(given.preset)])
    max_bytes = predicted_bytes(header, types) - fixed_bytes(given.model, header)
    about = f"tpe {given.dir.name} {given.tune_chunks} {given.ctx} {given.layers_together}"
    journal = Journal(given.dir / "tpe.jsonl", about)
    n_measured = 0

    def tell(what: str, n: int, total: int) -> None:
        nonlocal n_measured
        n_measured += n if what in ("sensitivity", "refinement") else 0

    async with scoring_worker(open_config(given.model, given.ctx, given.threads)) as client:
        await client.set_importance(columns)
        tuning, held_out = [
            await reference_of(
                client, await chunks_of(client, texts, given.ctx, n, special=given.special)
            )
            for texts, n in (
                (given.tune, given.tune_chunks), (given.held_out, given.held_out_chunks),
            )
        ]  # fmt: skip
        groups = groups_of(header, given.layers_together)
        costs = await measure_costs(client, header, tuning, groups, journal, tell)
        greedy = await best_allocation(
            client, tuning, groups, costs, Budget(max_bytes), journal, tell=tell
        )
        assert greedy is not None
        n_measured += 2  # the two allocations
        rows = [("greedy", n_measured, greedy.kld, greedy.allocation)]
        trials = Trials(client, tuning, journal)
        probe = {g.name: sum(probed(one) for one in costs if one.name in g.tensors) for g in groups}
        middle = sum(math.log(max(x, 1e-9)) for x in probe.values()) / len(probe)
        start = {
            name: min(WIDTH, max(-WIDTH, math.log(max(x, 1e-9)) - middle))
            for name, x in probe.items()
        }
        for seed in SEEDS:
            for name, begin in (("cold", None), ("warm", start)):
                kld, best = await search(trials, costs, groups, max_bytes, n_measured, seed, begin)
                n = n_measured if begin is None else n_measured + len(groups)
                rows.append((f"TPE {name}, seed {seed}", n, kld, best))
        print(f"{given.preset} of {given.model.name}, {len(groups)} groups")
        print("| search | measurements | tuning KLD | held-out KLD |\n|---|---|---|---|")
        for name, n, kld, best in rows:
            await client.alter(best.kinds, plain=best.plain)
            other = await mean_divergence(client, held_out)
            print(f"| {name} | {n} | {kld:.5f} | {other:.5f} |", flush=True)


def main() -> None:
    given = parsed()
    print(machine.describe())
    asyncio.run(run(given))
