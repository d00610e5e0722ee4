"""What each filter does to a distribution that is known."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeagent.engine.llama.sampler import Sampler
from edgeagent.engine.llama.sampler_chain import Candidates
from edgeagent.types.sampling import Sampling

N_VOCAB = 50
CANDIDATES = Candidates(N_VOCAB)
PLAIN = {"top_k": 0, "top_p": 1.0, "min_p": 0.0}


def logits(**tokens: float) -> np.ndarray:
    values = np.full(N_VOCAB, -100.0, np.float32)
    for name, value in tokens.items():
        values[int(name[1:])] = value
    return values


def draw(
    sampling: Sampling, values: np.ndarray, n: int = 400, tail: tuple[int, ...] = ()
) -> Counter[int]:
    """Independent draws: a fresh sampler for each, seeded by its number."""
    counts: Counter[int] = Counter()
    for answer in range(n):
        sampler = Sampler(sampling, N_VOCAB, list(tail), answer)
        counts[sampler.pick(values.copy(), CANDIDATES)] += 1
        sampler.close()
        sampler.close()
    return counts


def test_temperature_zero_takes_the_most_probable():
    assert draw(Sampling(temperature=0), logits(t3=1, t4=2, t5=1.9), 20) == {4: 20}


def test_a_plain_draw_follows_the_probabilities():
    counts = draw(Sampling(temperature=1, seed=1, **PLAIN), logits(t3=0, t4=np.log(3)), 2000)
    assert counts[4] / 2000 == pytest.approx(0.75, abs=0.04)


def test_high_temperature_flattens():
    counts = draw(Sampling(temperature=2, seed=1, **PLAIN), logits(t3=0, t4=np.log(9)), 2000)
    assert counts[4] / 2000 == pytest.approx(0.75, abs=0.04)


@pytest.mark.parametrize(
    ("sampling", "allowed"),
    [
        ({"top_k": 2}, {1, 2}),
        ({"top_p": 0.5}, {1}),
        ({"top_p": 0.8}, {1, 2}),
        ({"min_p": 0.3}, {1, 2}),
        ({"typical_p": 0.25}, {2}),  # 0.3 lies nearer to the entropy than 0.6
        ({}, {1, 2, 3}),
    ],
)
def test_each_filter_leaves_the_tokens_it_should(sampling, allowed):
    values = logits(t1=np.log(0.6), t2=np.log(0.3), t3=np.log(0.1))
    counts = draw(Sampling(temperature=1, seed=7, **(PLAIN | sampling)), values)
    assert set(counts) == allowed


def test_the_same_seed_draws_the_same_tokens_and_each_answer_its_own():
    values = logits(**{f"t{i}": 0.0 for i in range(20)})

    def tokens(seed: int, answer: int) -> list[int]:
        sampler = Sampler(Sampling(temperature=1, seed=seed, **PLAIN), N_VOCAB, [], answer)
        return [sampler.pick(values.copy(), CANDIDATES) for _ in range(20)]

    assert tokens(3, 0) == tokens(3, 0)
    assert tokens(3, 0) != tokens(3, 1)
    assert tokens(3, 0) != tokens(4, 0)


def test_bias_forbids_and_forces():
    values = logits(t3=5, t4=1)
    assert draw(Sampling(temperature=0, logit_bias={3: -100.0}), values, 1) == {4: 1}
    assert draw(Sampling(temperature=0, logit_bias={9: 200.0}), values, 1) == {9: 1}


def test_repeats_are_counted_from_the_prompt_within_the_window():
    values = logits(t3=2.0, t4=1.5)
    sampling = Sampling(temperature=0, repeat_penalty=2.0, repeat_last_n=2)
    assert draw(sampling, values, 1, tail=(3, 7)) == {4: 1}
    assert draw(sampling, values, 1, tail=(3, 7, 8)) == {3: 1}  # 3 has left the window
    assert draw(sampling, logits(t3=-1.0, t4=-1.5), 1, tail=(3, 7)) == {4: 1}  # also below zero


def test_presence_and_frequency_count_generated_tokens_only():
    sampler = Sampler(
        Sampling(temperature=0, presence_penalty=0.3, frequency_penalty=0.4), N_VOCAB, [3, 3], 0
    )
    values = logits(t3=2.0, t4=1.0)
    picked = [sampler.pick(values.copy(), CANDIDATES) for _ in range(4)]
    # 3 stands at 2.0, 1.3 after one occurrence, 0.9 after two: then 4 comes first.
    assert picked == [3, 3, 4, 3]


@given(st.lists(st.floats(-20, 20, width=32), min_size=N_VOCAB, max_size=N_VOCAB))
def test_some_token_is_always_drawn(values):
    sampler = Sampler(
        Sampling(temperature=0.7, top_k=5, top_p=0.01, min_p=1.0, typical_p=0.01), N_VOCAB, [], 0
    )
    assert 0 <= sampler.pick(np.array(values, np.float32), CANDIDATES) < N_VOCAB
