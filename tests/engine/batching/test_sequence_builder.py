"""What becomes a sequence of the engine, without weights."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from edgeagent.engine.batching.sequence import Request
from edgeagent.engine.batching.sequence_builder import SequenceBuilder, endless
from edgeagent.engine.llama.sampler import Sampler
from edgeagent.engine.llama.sampler_chain import Candidates
from edgeagent.errors import ModelUnusable
from edgeagent.types.engine_config import EngineConfig
from edgeagent.types.generation import GenerateSpec
from edgeagent.types.intents import IntentQuestion
from edgeagent.types.sampling import Sampling

QUESTION = IntentQuestion(
    text="Hello", candidates=[], out_of_scope="none", threshold=0.5, may_abstain=False, otherwise=""
)


@pytest.mark.parametrize("question", [None, QUESTION])
def test_an_adapter_that_is_not_loaded_is_refused_before_a_step(
    question: IntentQuestion | None,
) -> None:
    adapters = SimpleNamespace(ids=frozenset({"good"}), problems={"bad": "it was changed"})
    llama: Any = SimpleNamespace(adapters=adapters, n_vocab=10)
    nothing: Any = SimpleNamespace()
    builder = SequenceBuilder(EngineConfig(model_id="m", path="m"), llama, nothing, nothing)
    spec = GenerateSpec(prompts=[], sampling=Sampling(), adapter="bad", intent_question=question)
    with pytest.raises(ModelUnusable, match="it was changed"):
        builder.build(Request(1, spec, 0.0))


@pytest.mark.parametrize("temperature", [0.0, 1.5])
def test_an_answer_without_end_draws_no_token_that_ends_it(temperature: float) -> None:
    n_vocab = 32
    own = Sampling(temperature=temperature, logit_bias={4: 5.0}, seed=1)
    sampler = Sampler(endless(own, {3, 9}), n_vocab, [], 0)
    candidates = Candidates(n_vocab)
    for _ in range(20):
        logits = np.zeros(n_vocab, np.float32)
        logits[[3, 9]] = 30.0  # what the model would say
        assert sampler.pick(logits, candidates) not in (3, 9)
    assert endless(own, {3, 9}).logit_bias[4] == own.logit_bias[4]
    sampler.close()
