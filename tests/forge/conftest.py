"""Parts of a small training: a few intents, a decoder of 0.1 million weights; and the real data sets."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from edgeagent.forge.augment import Augmenter
from edgeagent.forge.datasets import Corpus, load
from edgeagent.forge.decoder import DecoderShape
from edgeagent.forge.distillation import TrainingPool
from edgeagent.forge.tokenizer import AssistantTokenizer
from tests import assistant
from tests.conftest import SHARED

DATA = SHARED / "data"


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
def small() -> Corpus:
    """Seven intents of the three domains, with texts that we made ourselves."""
    return assistant.corpus()


@pytest.fixture(scope="session")
def vocabulary(small: Corpus) -> AssistantTokenizer:
    return AssistantTokenizer.train(small, 512)


@pytest.fixture
def pool(small: Corpus) -> TrainingPool:
    return TrainingPool(small.train, Augmenter(small.train, seed=1), 2)


@pytest.fixture(scope="session")
def shape(vocabulary: AssistantTokenizer) -> DecoderShape:
    return DecoderShape(
        vocabulary.n_tokens, n_embd=64, n_layers=2, n_head=4, n_head_kv=2, n_ff=96, n_ctx=128
    )
