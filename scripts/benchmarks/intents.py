"""Own intents from examples: accuracy and minutes of `edgeagent forge new`, beside a classifier on MiniLM.

    scripts/bench intents --set clinc-banking --n 30 --method head
    scripts/bench intents --examples train.csv --tests test.csv --method torch     any other data
    scripts/bench intents --set snips --chat-model FILE.gguf [--names]     also a chat model with a schema

Sets: CLINC150's banking intents, Banking77's first 20, and SNIPS with slots; subjects of MMLU's questions,
and the sections of MTS-Dialog's medical notes; from `--data`. The names of the intents are replaced by
numbers, so that nothing is learnt from them. Beside it stands a logistic regression on the vectors of
all-MiniLM-L6-v2, with the penalty chosen by cross-validation, on the same examples.

One of the two base models, edge-assistant-s, was trained on the training splits of the first three sets with
their labels: for these, `--bases encoder` says what the other one does alone. No base model has seen the last
two sets; `--examples` takes any other data.

A chat model gets a sample of the tests, `SHOWN` examples of each intent in its prompt, and a schema that
allows the names of the intents and nothing else. Its figures have a 95% interval (Wilson); beside them stand
those of the own model on the same texts.
"""

from __future__ import annotations

import argparse
import asyncio
import csv
import json
import random
import tempfile
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgeagent.catalog.catalog_file import Entry
from edgeagent.catalog.install.installer import install_entry
from edgeagent.catalog.model_library import Library
from edgeagent.cli.shared.progress import timed_progress
from edgeagent.cli.shared.trial_load import trial_load
from edgeagent.engine.client import EngineClient
from edgeagent.forge.datasets import Item, Slot
from edgeagent.forge.domain import softmax_head
from edgeagent.forge.domain.build import BuildOptions, build
from edgeagent.forge.domain.checks import without_duplicates
from edgeagent.forge.domain.encoder_trunk import EncoderTrunk
from edgeagent.forge.domain.example import Domain, Example, Place
from edgeagent.forge.domain.features import encoder, vectors
from edgeagent.forge.domain.head_training import Base
from edgeagent.forge.domain.readers.source import read_domain
from edgeagent.forge.domain.served_evaluation import served_figures
from edgeagent.forge.domain.trunk import Trunk
from edgeagent.forge.domain.workspace import Plan, Workspace, digest_of
from edgeagent.types.engine_config import EngineConfig
from edgeagent.types.generation import Form, GenerateSpec
from edgeagent.types.prompt import Prompt
from edgeagent.types.sampling import Sampling
from edgeagent.worker.process_environment import keep_arithmetic_single, keep_kernels
from scripts.benchmarks.assistant import CHAT
from scripts.benchmarks.exchange import exchanged
from scripts.benchmarks.intervals import interval
from scripts.benchmarks.machine import describe
from scripts.benchmarks.served import serving

SETS = ("clinc-banking", "banking77-20", "snips", "mmlu", "mts-dialog")
SHIPPED = {
    "assistant": Path("models/edge-assistant-s/edge-assistant-s.Q8_0.gguf"),
    "encoder": Path("models/edge-encoder/edge-encoder.gguf"),
}
# Of each class of the last two sets, after the examples.
N_TESTS = 40
# Examples of each intent that a chat model sees.
SHOWN = 2


def items_of(name: str, data: Path) -> tuple[list[Item], list[Item]]:
    """Training and test items of one set. Tests are CLINC150's validation split; every tenth of each intent
    of Banking77; every twentieth of SNIPS."""
    from edgeagent.forge import datasets

    if name in ("mmlu", "mts-dialog"):
        return strange_items(name, data)
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


def strange_items(name: str, data: Path) -> tuple[list[Item], list[Item]]:
    """Texts that no base model has seen: for each class `N_TESTS` to test with, the others to learn from.

    MMLU: the twelve subjects with the most questions, without their choices; MTS-Dialog: the six sections
    with the most notes. At most 400 characters of a text.
    """
    by_class: dict[str, set[str]] = defaultdict(set)
    if name == "mmlu":
        for path in sorted((data / "routellm" / "mmlu").glob("*.csv")):
            with path.open(encoding="utf-8", newline="") as file:
                for row in csv.DictReader(file):
                    question = row["prompt"].split("\n\nA. ")[0]
                    by_class[path.stem].add(" ".join(question.split())[:400])
    else:
        for path in sorted((data / "mts-dialog").glob("*.csv")):
            with path.open(encoding="utf-8", newline="") as file:
                for row in csv.DictReader(file):
                    by_class[row["section_header"]].add(" ".join(row["section_text"].split())[:400])
    n_classes = 12 if name == "mmlu" else 6
    largest = sorted(by_class, key=lambda c: (-len(by_class[c]), c))[:n_classes]
    train, test = [], []
    for number, label in enumerate(sorted(largest)):
        texts = sorted(by_class[label])
        random.Random(number).shuffle(texts)
        n_tests = min(N_TESTS, len(texts) // 3)
        test += [Item(text, "assistant", label) for text in texts[:n_tests]]
        train += [Item(text, "assistant", label) for text in texts[n_tests:]]
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


async def minilm(
    train: Sequence[Example], test: Sequence[Example], path: Path, seed: int, kept: Path | None
) -> float:
    """Accuracy of a logistic regression on sentence vectors; the file `kept` has those of earlier runs."""
    texts = [e.text for e in (*train, *test)]
    known: dict[str, np.ndarray[Any, Any]] = {}
    if kept is not None and kept.is_file():  # noqa: ASYNC240
        with np.load(kept) as stored:
            known = dict(zip(stored["texts"].tolist(), stored["vectors"], strict=True))
    todo = [text for text in dict.fromkeys(texts) if text not in known]
    if todo:
        async with encoder(path) as client:
            known |= dict(zip(todo, await vectors(client, todo), strict=True))
        if kept is not None:
            np.savez(kept, texts=np.array(list(known)), vectors=np.stack(list(known.values())))
    found = np.stack([known[text] for text in texts])
    names = sorted({e.intent for e in train})
    labels = np.array([names.index(e.intent) for e in train])
    x, others = found[: len(train)], found[len(train) :]
    held = softmax_head.cross_validate(
        x, labels, len(names), seed=seed, penalties=(1e-2, 1e-3, 1e-4, 1e-5)
    )
    rows = softmax_head.train(x, labels, len(names), penalty=held.penalty)
    chosen = (others @ rows.T).argmax(1)
    return float(np.mean([names[c] == e.intent for c, e in zip(chosen, test, strict=True)]))


def served_rates(entry: Entry, texts: Sequence[str]) -> dict[str, float]:
    """Requests per second of a daemon that serves the made model, with 1 and with 8 clients."""
    with tempfile.TemporaryDirectory() as folder:
        models, state = Path(folder, "models"), Path(folder, "state")
        models.mkdir()
        install_entry(entry, Library(models, Path(folder, "none"), state), trial=trial_load)
        bodies = [{"model": entry.id, "messages": [{"role": "user", "content": t}]} for t in texts]
        found = {}
        with serving(models, state_dir=str(state)) as daemon:
            daemon.wait_until_ready()
            asyncio.run(exchanged(daemon.url, CHAT, bodies[:8], 1))
            for n_clients in (1, 8):
                _, _, took_s = asyncio.run(exchanged(daemon.url, CHAT, bodies, n_clients))
                found[f"{n_clients} clients"] = round(len(bodies) / took_s)
    return found


async def asked_in_words(
    train: Sequence[Example],
    test: Sequence[Example],
    names: Mapping[str, str],
    path: Path,
    seed: int,
) -> list[bool]:
    """Which texts a chat model gets right that sees `SHOWN` examples of each intent, and may answer with the
    `names` of intents only."""
    rng = random.Random(seed)
    shown = [
        example
        for intent in sorted(names)
        for example in rng.sample([e for e in train if e.intent == intent], SHOWN)
    ]
    rng.shuffle(shown)
    labels = sorted(names.values())
    told = f"Classify each text. The labels: {', '.join(labels)}. Answer with the label only."
    # As turns of a dialogue: 25 of 30 training texts of CLINC150 right, and 0 as lines of the instruction.
    before = [{"role": "system", "content": told}]
    for example in shown:
        answer = json.dumps(names[example.intent])
        before += [
            {"role": "user", "content": example.text}, {"role": "assistant", "content": answer},
        ]  # fmt: skip
    form = Form(kind="json_schema", text=json.dumps({"enum": labels}))
    config = EngineConfig(
        model_id=path.stem, path=str(path), n_ctx=4096, n_seq=2, queue_timeout_s=600
    )
    client = await EngineClient.start(config, timeout_s=120)
    found = []
    try:
        for example in test:
            messages = [*before, {"role": "user", "content": example.text}]
            spec = GenerateSpec(
                prompts=[Prompt(messages=messages)], form=form, max_tokens=24,
                sampling=Sampling(temperature=0),
            )  # fmt: skip
            answer = "".join([chunk.text async for chunk in client.generate(spec)])
            found.append(answer.strip() == json.dumps(names[example.intent]))
    finally:
        await client.close()
    return found


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
    parser.add_argument(
        "--bases",
        choices=("assistant", "encoder", "both"),
        default="both",
        help="base models to try",
    )
    parser.add_argument("--assistant", type=Path, default=SHIPPED["assistant"])
    parser.add_argument("--encoder", type=Path, default=SHIPPED["encoder"])
    parser.add_argument("--minilm", type=Path, help="GGUF file of all-MiniLM-L6-v2")
    parser.add_argument(
        "--keep", type=Path, help="file.npz that keeps MiniLM's vectors between runs"
    )
    parser.add_argument("--no-teacher", action="store_true", help="MiniLM is only compared with")
    parser.add_argument("--no-comparison", action="store_true", help="no classifier on MiniLM")
    parser.add_argument("--chat-model", type=Path, help="GGUF file of a chat model to ask beside")
    parser.add_argument("--sample", type=int, default=150, help="tests that the chat model gets")
    parser.add_argument(
        "--names", action="store_true", help="the chat model sees the intents' own names"
    )
    parser.add_argument(
        "--served", action="store_true", help="also requests/s of a daemon with the model"
    )
    options = parser.parse_args(arguments)
    keep_kernels()
    keep_arithmetic_single()
    if options.examples is not None:
        domain = without_duplicates(read_domain(options.examples, options.seed))
        test = read_domain(options.tests, options.seed).inside
        numbers = {name: name for name in domain.intents}
    else:
        train_items, test_items = items_of(options.name, options.data)
        numbers = {n: f"intent_{i}" for i, n in enumerate(sorted({i.intent for i in train_items}))}
        domain = without_duplicates(hidden(drawn(train_items, options.n, options.seed), numbers))
        test = hidden(test_items, numbers).inside
    if options.method == "head":
        domain = domain.without_slots()
    bases: list[Base] = []
    if options.bases != "encoder":
        bases.append(Trunk.read(options.assistant))
    if options.bases != "assistant" and not domain.slot_names:
        bases.append(EncoderTrunk.read(options.encoder))
    teacher = None if options.no_teacher or options.method == "head" else options.minilm
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        workspace = Workspace(Path(folder), "bot")
        workspace.begin(
            Plan(options.seed, options.method, digest_of(domain), "", "", options.minutes), domain
        )
        with timed_progress() as tell:
            made = build(
                domain, bases, workspace,
                BuildOptions(options.seed, options.method, options.minutes, teacher), tell,
            )  # fmt: skip
        minutes = (time.monotonic() - started) / 60
        rates = served_rates(made.entry, [e.text for e in test]) if options.served else None
        figures, choices = asyncio.run(
            served_figures(workspace.gguf, test, domain.intents, domain.slot_names)
        )
    beside = None
    if options.minilm is not None and not options.no_comparison:
        beside = asyncio.run(
            minilm(domain.inside, test, options.minilm, options.seed, options.keep)
        )
    chat = None
    if options.chat_model is not None:
        sample = random.Random(options.seed).sample(
            range(len(test)), min(options.sample, len(test))
        )
        names = {number: name if options.names else number for name, number in numbers.items()}
        started = time.monotonic()
        right = asyncio.run(
            asked_in_words(
                domain.inside, [test[n] for n in sample], names, options.chat_model, options.seed
            )
        )
        own = sum(choices[n].intent == test[n].intent for n in sample)
        chat = {
            "n": len(sample), "accuracy": round(sum(right) / len(sample), 4),
            "interval": [round(end, 3) for end in interval(sum(right), len(sample))],
            "own_on_these": round(own / len(sample), 4),
            "own_interval": [round(end, 3) for end in interval(own, len(sample))],
            "s_a_text": round((time.monotonic() - started) / len(sample), 2),
        }  # fmt: skip
    print(json.dumps({
        "set": options.name or str(options.examples), "n": options.n, "method": made.figures.method,
        "base": made.figures.base,
        "n_intents": len(domain.intents), "n_examples": len(domain.inside), "n_tests": len(test),
        "accuracy": round(figures.accuracy, 4), "minilm": round(beside, 4) if beside is not None else None,
        "chat_model": chat,
        "own_estimate": round(made.figures.accuracy, 4),
        "slot_f1": round(figures.slot_f1, 4) if figures.slot_f1 is not None else None,
        "calls": round(figures.calls, 4) if figures.calls is not None else None,
        "requests_s": rates, "minutes": round(minutes, 2), "texts_per_s": round(figures.texts_per_s),
        "mb": round(made.figures.size_bytes / 1e6, 2), "machine": describe(),
    }))  # fmt: skip


if __name__ == "__main__":
    main()
