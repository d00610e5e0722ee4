"""Parts of a small training: the real data sets, a few of their intents, a decoder of 0.1 million weights."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from edgeagent.forge.augment import Augmenter
from edgeagent.forge.datasets import Corpus, load
from edgeagent.forge.decoder import DecoderShape
from edgeagent.forge.teaching import Pool
from edgeagent.forge.vocabulary import Vocabulary
from tests.conftest import SHARED

DATA = SHARED / "data"
FEW = {
    "weather", "timer", "translate", "balance", "oos",
    "card_arrival", "lost_or_stolen_card", "GetWeather", "RateBook",
}  # fmt: skip


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def data() -> Path:
    if not (DATA / "clinc150" / "clinc150.json").is_file():
        pytest.skip("the data sets are not beside this checkout")
    return DATA


@pytest.fixture(scope="session")
def corpus(data: Path) -> Corpus:
    return load(data)


@pytest.fixture(scope="session")
def small(corpus: Corpus) -> Corpus:
    """A few intents of each domain, 40 training items and 10 kept back of each."""

    def few(items, n):
        seen: Counter[tuple[str, str]] = Counter()
        kept = []
        for item in items:
            key = (item.domain, item.intent)
            seen[key] += 1
            if item.intent in FEW and seen[key] <= n:
                kept.append(item)
        return tuple(kept)

    names = {domain: tuple(n for n in names if n in FEW) for domain, names in corpus.names.items()}
    slots = {intent: names for intent, names in corpus.slot_names.items() if intent in FEW}
    return replace(
        corpus,
        train=few(corpus.train, 40),
        validation=few(corpus.validation, 10),
        names=names,
        slot_names=slots,
    )


@pytest.fixture(scope="session")
def vocabulary(small: Corpus) -> Vocabulary:
    return Vocabulary.train(small, 1024)


@pytest.fixture
def pool(small: Corpus) -> Pool:
    return Pool(small.train, Augmenter(small.train, seed=1), 2)


@pytest.fixture(scope="session")
def shape(vocabulary: Vocabulary) -> DecoderShape:
    return DecoderShape(
        vocabulary.n_tokens, n_embd=64, n_layers=2, n_head=4, n_head_kv=2, n_ff=96, n_ctx=128
    )
