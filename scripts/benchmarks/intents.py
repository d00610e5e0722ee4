"""Own intents from examples: accuracy and minutes of `edgeagent forge new`, beside a classifier on MiniLM.

    scripts/bench intents --set clinc-banking --n 30 --method head
    scripts/bench intents --examples train.csv --tests test.csv --method torch     any other data

Sets: CLINC150's banking intents, Banking77's first 20, and SNIPS with slots; from `--data`. The names of the
intents are replaced by numbers, so that nothing is learnt from them. Beside it stands a logistic regression
on the vectors of all-MiniLM-L6-v2, with the penalty chosen by cross-validation, on the same examples.

The trunk, edge-assistant-s, was trained on the training splits of all three sets with their labels. So these
figures say what a domain near to what it knows reaches; `--examples` with other data says what a strange one
does. `--trunk` takes another base.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import tempfile
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from edgeagent.cli.shared.progress import timed_progress
from edgeagent.forge.datasets import Item, Slot
from edgeagent.forge.domain import softmax_head
from edgeagent.forge.domain.build import BuildOptions, build
from edgeagent.forge.domain.checks import without_duplicates
from edgeagent.forge.domain.example import Domain, Example, Place
from edgeagent.forge.domain.features import encoder, vectors
from edgeagent.forge.domain.readers.source import read_domain
from edgeagent.forge.domain.served_evaluation import served_figures
from edgeagent.forge.domain.trunk import Trunk
from edgeagent.forge.domain.workspace import Plan, Workspace, digest_of
from edgeagent.worker.process_environment import keep_arithmetic_single, keep_kernels
from scripts.benchmarks.machine import describe

SETS = ("clinc-banking", "banking77-20", "snips")
SHIPPED = Path("models/edge-assistant-s/edge-assistant-s.Q8_0.gguf")


def items_of(name: str, data: Path) -> tuple[list[Item], list[Item]]:
    """Training and test items of one set. Tests are CLINC150's validation split; every tenth of each intent
    of Banking77; every twentieth of SNIPS."""
    from edgeagent.forge import datasets

    if name == "clinc-banking":
        domains = json.loads((data / "clinc150" / "domains.json").read_text(encoding="utf-8"))
        wanted = set(domains["banking"])
        parts = datasets._clinc(data / "clinc150" / "clinc150.json")
    elif name == "banking77-20":
        parts = datasets._banking(data / "banking77" / "train.csv")
        wanted = set(sorted({item.intent for item in parts[0]})[:20])
    else:
        parts = datasets._snips(data / "snips")
        wanted = set(datasets.SNIPS_INTENTS)
    train, test = ([item for item in part if item.intent in wanted] for part in parts)
    return train, test


def drawn(items: Sequence[Item], n: int, seed: int) -> list[Item]:
    """`n` items of each intent."""
    by_intent: dict[str, list[Item]] = defaultdict(list)
    for item in items:
        by_intent[item.intent].append(item)
    rng = random.Random(seed)
    return [
        item
        for intent in sorted(by_intent)
        for item in rng.sample(by_intent[intent], min(n, len(by_intent[intent])))
    ]


def hidden(items: Sequence[Item], numbers: dict[str, str]) -> Domain:
    """A domain with numbers for names."""
    domain, place = Domain(), Path("items")
    for line, item in enumerate(items, start=1):
        domain.add(item.text, numbers[item.intent], Place(place, line), _unique(item.slots))
    return domain


def _unique(slots: Sequence[Slot]) -> list[Slot]:
    found: dict[str, Slot] = {}
    for slot in slots:
        found.setdefault(slot.name, slot)
    return sorted(found.values(), key=lambda slot: slot.start)


async def minilm(train: Sequence[Example], test: Sequence[Example], path: Path, seed: int) -> float:
    """Accuracy of a logistic regression on sentence vectors."""
    async with encoder(path) as client:
        found = await vectors(client, [e.text for e in (*train, *test)])
    names = sorted({e.intent for e in train})
    labels = np.array([names.index(e.intent) for e in train])
    x, others = found[: len(train)], found[len(train) :]
    held = softmax_head.cross_validate(
        x, labels, len(names), seed=seed, penalties=(1e-2, 1e-3, 1e-4, 1e-5)
    )
    rows = softmax_head.train(x, labels, len(names), penalty=held.penalty)
    chosen = (others @ rows.T).argmax(1)
    return float(np.mean([names[c] == e.intent for c, e in zip(chosen, test, strict=True)]))


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--set", choices=SETS, dest="name")
    parser.add_argument("--examples", type=Path, help="any file that `forge new` reads")
    parser.add_argument("--tests", type=Path, help="texts to test with, in the same form")
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--n", type=int, default=30, help="examples of each intent")
    parser.add_argument("--method", choices=("head", "torch"), default="head")
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--trunk", type=Path, default=SHIPPED)
    parser.add_argument("--minilm", type=Path, help="GGUF file of all-MiniLM-L6-v2")
    parser.add_argument("--no-teacher", action="store_true", help="MiniLM is only compared with")
    parser.add_argument("--no-comparison", action="store_true", help="no classifier on MiniLM")
    options = parser.parse_args(arguments)
    keep_kernels()
    keep_arithmetic_single()
    if options.examples is not None:
        domain = without_duplicates(read_domain(options.examples, options.seed))
        test = read_domain(options.tests, options.seed).inside
    else:
        train_items, test_items = items_of(options.name, options.data)
        numbers = {n: f"intent_{i}" for i, n in enumerate(sorted({i.intent for i in train_items}))}
        domain = without_duplicates(hidden(drawn(train_items, options.n, options.seed), numbers))
        test = hidden(test_items, numbers).inside
    if options.method == "head":
        domain = domain.without_slots()
    teacher = None if options.no_teacher or options.method == "head" else options.minilm
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        workspace = Workspace(Path(folder), "bot")
        workspace.begin(
            Plan(options.seed, options.method, digest_of(domain), "", "", options.minutes), domain
        )
        with timed_progress() as tell:
            made = build(
                domain, Trunk.read(options.trunk), workspace,
                BuildOptions(options.seed, options.method, options.minutes, teacher), tell,
            )  # fmt: skip
        minutes = (time.monotonic() - started) / 60
        figures, _ = asyncio.run(
            served_figures(workspace.gguf, test, domain.intents, domain.slot_names)
        )
    beside = None
    if options.minilm is not None and not options.no_comparison:
        beside = asyncio.run(minilm(domain.inside, test, options.minilm, options.seed))
    print(json.dumps({
        "set": options.name or str(options.examples), "n": options.n, "method": options.method,
        "n_intents": len(domain.intents), "n_examples": len(domain.inside), "n_tests": len(test),
        "accuracy": round(figures.accuracy, 4), "minilm": round(beside, 4) if beside is not None else None,
        "own_estimate": round(made.figures.accuracy, 4),
        "slot_f1": round(figures.slot_f1, 4) if figures.slot_f1 is not None else None,
        "calls": round(figures.calls, 4) if figures.calls is not None else None,
        "minutes": round(minutes, 2), "texts_per_s": round(figures.texts_per_s),
        "mb": round(made.figures.size_bytes / 1e6, 2), "machine": describe(),
    }))  # fmt: skip


if __name__ == "__main__":
    main()
