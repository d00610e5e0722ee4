"""What `edgeagent forge update` does with 50 corrected texts.

    scripts/bench intent-updates --set mmlu --n 30

A model is made from N examples of each intent. Of the texts that are left, the 50 that a reviewer should see
first (wrong ones, then the ones with the smallest margin) get their right intents, and the model is updated
with them. Reported: how many of the corrected texts are right then, how many of the texts that it knew are
lost, and the accuracy on other texts before and after.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path

from edgeagent.cli.shared.progress import timed_progress
from edgeagent.forge.domain.build import BuildOptions, build
from edgeagent.forge.domain.checks import without_duplicates
from edgeagent.forge.domain.encoder_trunk import EncoderTrunk
from edgeagent.forge.domain.example import Domain
from edgeagent.forge.domain.merging import merged, regressions
from edgeagent.forge.domain.served_evaluation import choices
from edgeagent.forge.domain.trunk import Trunk
from edgeagent.forge.domain.workspace import Plan, Workspace, digest_of
from edgeagent.worker.process_environment import keep_arithmetic_single, keep_kernels
from scripts.benchmarks.intents import SETS, SHIPPED, drawn, hidden, items_of
from scripts.benchmarks.machine import describe

N_CORRECTED, N_POOL = 50, 1500


def made(domain: Domain, folder: Path, name: str, seed: int) -> Path:
    workspace = Workspace(folder, name)
    workspace.begin(Plan(seed, "head", digest_of(domain), "", "", 1.0), domain)
    bases = [Trunk.read(SHIPPED["assistant"]), EncoderTrunk.read(SHIPPED["encoder"])]
    with timed_progress() as tell:
        build(domain, bases, workspace, BuildOptions(seed, "head"), tell)
    return workspace.gguf


def accuracy(path: Path, domain: Domain, intents: Sequence[str]) -> float:
    found = asyncio.run(choices(path, [e.text for e in domain.inside], intents, {}))
    return sum(c.intent == e.intent for c, e in zip(found, domain.inside, strict=True)) / len(found)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--set", choices=SETS, dest="name", required=True)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--n", type=int, default=30, help="examples of each intent")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args(arguments)
    keep_kernels()
    keep_arithmetic_single()
    train, test = items_of(options.name, options.data)
    numbers = {n: f"intent_{i}" for i, n in enumerate(sorted({i.intent for i in train}))}
    known = drawn(train, options.n, options.seed)
    old = without_duplicates(hidden(known, numbers)).without_slots()
    taken = {item.text for item in known}
    rest = [item for item in train if item.text not in taken]
    pool = without_duplicates(hidden(rest[:: max(1, len(rest) // N_POOL)], numbers)).without_slots()
    tests = hidden(test, numbers).without_slots()
    with tempfile.TemporaryDirectory() as folder:
        before = made(old, Path(folder), "before", options.seed)
        found = asyncio.run(choices(before, [e.text for e in pool.inside], old.intents, {}))
        worst = sorted(
            zip(pool.inside, found, strict=True),
            key=lambda pair: (pair[0].intent == pair[1].intent, pair[1].margin),
        )[:N_CORRECTED]
        corrected = Domain([example for example, _ in worst])
        new = merged(old, corrected)
        after = made(new, Path(folder), "after", options.seed)
        lost, n_known = asyncio.run(regressions(before, after, old, new))
        print(json.dumps({
            "set": options.name, "n": options.n,
            "n_wrong_before": sum(e.intent != c.intent for e, c in worst),
            "corrected_right": round(accuracy(after, corrected, new.intents), 3),
            "known": n_known, "known_lost": len(lost),
            "tests_before": round(accuracy(before, tests, old.intents), 4),
            "tests_after": round(accuracy(after, tests, new.intents), 4), "machine": describe(),
        }))  # fmt: skip


if __name__ == "__main__":
    main()
