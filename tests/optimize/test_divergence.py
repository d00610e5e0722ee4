"""Perplexity and KL divergence over kept tokens, compared with those over whole distributions."""

from __future__ import annotations

import numpy as np
import pytest

from edgeagent.optimize.divergence import chunk_divergence, divergence, perplexity, reference_chunk
from edgeagent.optimize.kept_tokens import KeptTokens, SentTokens
from edgeagent.optimize.protocol import ChunkScores

N_VOCAB = 4000


def log_softmax(logits):
    return logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))


def distributions(n=400, noise=0.3, spread=2.0):
    """Log-probabilities of a reference and of a model whose logits differ by noise."""
    random = np.random.default_rng(7)
    logits = spread * random.standard_normal((n, N_VOCAB)) + np.linspace(4, 0, N_VOCAB)
    other = logits + noise * random.standard_normal(logits.shape)
    return tuple(log_softmax(x).astype(np.float32) for x in (logits, other))


def scored(logp, kept):
    """What a worker returns for rows of log-probabilities, whose next token is always token 0."""
    ids = kept.of(logp)
    return ChunkScores(
        (-logp[:, 0]).tobytes(),
        logp.argmax(axis=1).astype(np.int32).tobytes(),
        ids.astype(np.int32).tobytes(),
        np.take_along_axis(logp, ids.astype(np.int64), 1).tobytes(),
    )


def compared(p, q, n_top, n_tail):
    reference = reference_chunk(b"", scored(p, KeptTokens(n_top, n_tail, 3)), n_top)
    return chunk_divergence(reference, scored(q, SentTokens(reference.ids)))


def exact(p, q):
    p, q = p.astype(np.float64), q.astype(np.float64)
    return (np.exp(p) * (p - q)).sum(axis=1)


@pytest.mark.parametrize(("noise", "spread"), [(0.05, 2.0), (0.3, 2.0), (1.0, 1.0), (0.3, 0.5)])
def test_the_mean_divergence_over_kept_tokens_is_that_over_the_whole_vocabulary(noise, spread):
    p, q = distributions(noise=noise, spread=spread)
    assert (1 - np.exp(np.sort(p)[:, -256:]).sum(axis=1)).mean() > 0.05  # the tail matters
    found = compared(p, q, 256, 64).kld.mean()
    assert found == pytest.approx(exact(p, q).mean(), rel=0.02)


def test_a_vocabulary_within_the_top_is_kept_whole_and_compared_exactly():
    p, q = distributions(n=50)
    found = compared(p, q, N_VOCAB, 64)
    assert found.kld == pytest.approx(exact(p, q), rel=1e-3, abs=1e-6)


def test_equal_models_have_no_divergence_and_the_same_best_token():
    p, _ = distributions(n=50)
    found = compared(p, p, 128, 16)
    assert np.abs(found.kld).max() < 1e-6 and found.is_same_top.all()


def test_one_seed_draws_the_same_tokens():
    p, _ = distributions(n=5)
    one, same, other = (KeptTokens(64, 32, seed).of(p) for seed in (1, 1, 2))
    assert np.array_equal(one, same) and not np.array_equal(one, other)


def test_draws_come_from_the_tail_only():
    p, _ = distributions(n=20)
    ids = KeptTokens(64, 32, 1).of(p)
    for row in ids:
        assert not set(row[:64]) & set(row[64:])


def test_a_prediction_without_a_tail_adds_nothing():
    logits = np.full((4, N_VOCAB), -1e4)
    logits[:, 5] = 0.0
    p = log_softmax(logits).astype(np.float32)
    assert np.abs(compared(p, p, 8, 4).kld).max() < 1e-6


def test_figures_of_values():
    found = perplexity(np.log(np.array([2.0, 2.0, 2.0])))
    assert found.value == pytest.approx(2.0) and found.error == pytest.approx(0.0)
    spread = divergence(np.arange(1001) / 1000, np.array([True, False, True, True]))
    assert (spread.p90, spread.p99, spread.p999) == pytest.approx((0.9, 0.99, 0.999))
    assert spread.mean == pytest.approx(0.5) and spread.same_top == 0.75
