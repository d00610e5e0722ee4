"""Makes the scope gates of the shipped assistants, `edge-assistant.scope`, from the public data sets.

The examples are training texts, those out of scope among them. The gates are fitted on validation texts,
since the models were trained on the others and are too sure of them; each domain gets a gate, and all
domains together. Out of scope are, for the assistant domain, CLINC150's own texts, and for the other domains
validation texts of intents that are nothing like theirs (`datasets.Corpus`). Needs neither torch nor the
files of a training.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from edgeagent.catalog.assistant_intents import ALL
from edgeagent.forge.datasets import DOMAINS, OUT_OF_SCOPE, Corpus, Item, strange_to
from edgeagent.forge.domain.features import encoder, vectors
from edgeagent.forge.domain.served_evaluation import choices
from edgeagent.routing.scope_gate import ScopeFile
from edgeagent.routing.training.scope_training import (
    MOST_TEXTS,
    Answer,
    domain_gates,
    examples_of,
)

ENCODER = "edge-encoder"
PART = 2048  # texts whose vectors are kept at once
Vectors = np.ndarray[Any, np.dtype[np.float64]]
Tell = Callable[[int], None]


@dataclass(frozen=True)
class ScopeTexts:
    """The `examples` of the intents, texts `outside` of all, and the texts that gates are fitted on, by
    domain; None for the intent of those out of scope."""

    examples: list[tuple[str, str]]
    outside: list[str]
    fitted: dict[str, list[tuple[str, str | None]]]

    @classmethod
    def of(cls, corpus: Corpus) -> ScopeTexts:
        examples = evenly(
            (one.text, one.intent) for one in corpus.train if one.intent != OUT_OF_SCOPE
        )
        fitted: dict[str, list[tuple[str, str | None]]] = {}
        for domain in DOMAINS:
            fitted[domain] = [
                (one.text, wanted(one)) for one in corpus.validation if one.domain == domain
            ]
            fitted[domain] += [(one.text, None) for one in strange_to(corpus, domain)]
        fitted[ALL] = [(one.text, wanted(one)) for one in corpus.validation]
        return cls(examples, list(corpus.outside), fitted)

    @property
    def all_texts(self) -> list[str]:
        found = [*self.outside, *(text for text, _ in self.examples)]
        found += [text for texts in self.fitted.values() for text, _ in texts]
        return list(dict.fromkeys(found))


def evenly(texts: Iterable[tuple[str, str]], most: int = MOST_TEXTS) -> list[tuple[str, str]]:
    """At most this many texts of each intent, evenly spaced."""
    by_intent: dict[str, list[str]] = {}
    for text, intent in texts:
        by_intent.setdefault(intent, []).append(text)
    return [
        (found[int(n * max(1.0, len(found) / most))], intent)
        for intent, found in sorted(by_intent.items())
        for n in range(min(len(found), most))
    ]


def wanted(item: Item) -> str | None:
    return item.intent if item.intent != OUT_OF_SCOPE else None


def answers_of(
    path: Path, texts: Sequence[tuple[str, str | None]], corpus: Corpus, domain: str, kept: Path,
    tell: Tell = lambda n: None,
) -> list[Answer]:  # fmt: skip
    """What the model at `path` answers to each text where the intents of the domain are on offer; from the
    file `kept` where it is there."""
    if kept.is_file():
        tell(len(texts))
        return msgspec.json.decode(kept.read_bytes(), type=list[Answer])
    names = corpus.names[domain] if domain in corpus.names else corpus.all_names[:-1]
    found = asyncio.run(
        choices(
            path, [text for text, _ in texts], names, dict.fromkeys(corpus.slot_names, ()), tell
        )
    )
    answers = [
        Answer(text, right, one.intent, one.probability, one.margin)
        for (text, right), one in zip(texts, found, strict=True)
    ]
    kept.write_bytes(msgspec.json.encode(answers))
    return answers


def vectors_of(
    path: Path, texts: Sequence[str], kept: Path, tell: Tell = lambda n: None
) -> dict[str, Vectors]:
    """Unit vectors of texts by the sentence-embedding model at `path`; those in the file `kept` (.npz) are
    not computed anew, and what is computed is added to it, part by part."""
    known: dict[str, Vectors] = {}
    if kept.is_file():
        stored = np.load(kept)
        names = msgspec.json.decode(stored["texts"].tobytes(), type=list[str])
        known = dict(zip(names, stored["vectors"].astype(np.float64), strict=True))
    missing = [text for text in texts if text not in known]
    tell(len(texts) - len(missing))

    async def made() -> None:
        async with encoder(path) as client:
            for start in range(0, len(missing), PART):
                part = missing[start : start + PART]
                found = await vectors(client, part, tell)
                known.update(zip(part, found.astype(np.float64), strict=True))
                names = np.frombuffer(msgspec.json.encode(list(known)), np.uint8)
                np.savez(kept, texts=names, vectors=np.array(list(known.values()), np.float32))

    if missing:
        asyncio.run(made())
    return {text: known[text] for text in texts}


def scope_file(
    texts: ScopeTexts,
    answers: Mapping[str, Mapping[str, Sequence[Answer]]],
    known: Mapping[str, Vectors],
) -> ScopeFile:
    """The gates. `answers` by the SHA-256 of a model and the domain."""
    of_examples = np.array([known[text] for text, _ in texts.examples]) if known else None
    of_others = np.array([known[text] for text in texts.outside]) if known else None
    empty = examples_of(texts.examples, of_examples, texts.outside, of_others)
    if known:
        empty = msgspec.structs.replace(empty, encoder=ENCODER)
    return with_gates(empty, answers)


def with_gates(file: ScopeFile, answers: Mapping[str, Mapping[str, Sequence[Answer]]]) -> ScopeFile:
    """The same examples with gates that are fitted to these answers."""
    models = {
        sha256: {domain: domain_gates(one, file) for domain, one in found.items()}
        for sha256, found in answers.items()
    }
    return msgspec.structs.replace(file, models=models)
