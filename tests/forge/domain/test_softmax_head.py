"""The linear classifier of a domain model, and the thresholds set with it."""

from __future__ import annotations

import numpy as np
import pytest

from edgeagent.forge.domain.softmax_head import cross_validate, folds, softmax, train
from edgeagent.forge.domain.thresholds import calibrate, highest


def clusters(n: int, seed: int = 0, spread: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Texts of three classes around points far from the origin, as hidden states are."""
    rng = np.random.default_rng(seed)
    middle = np.random.default_rng(7).normal(size=(3, 16)) + 5
    labels = np.arange(n) % 3
    return (middle[labels] + spread * rng.normal(size=(n, 16))).astype(np.float32), labels


def test_rows_without_a_bias_tell_classes_apart():
    states, labels = clusters(90, spread=0.4)
    rows = train(states, labels, 3, penalty=1e-3)
    others, wanted = clusters(300, seed=1, spread=0.4)
    assert ((others @ rows.T).argmax(1) == wanted).mean() > 0.95


def test_rare_classes_count_as_much_as_common_ones():
    states, labels = clusters(300)
    few = np.flatnonzero(labels == 2)[:10]
    kept = np.concatenate([np.flatnonzero(labels != 2), few])
    rows = train(states[kept], labels[kept], 3, penalty=1e-2)
    others, wanted = clusters(300, seed=1)
    chosen = (others @ rows.T).argmax(1)
    assert (chosen[wanted == 2] == 2).mean() > 0.6


def test_folds_spread_every_class_and_do_not_change():
    labels = np.array([0] * 10 + [1] * 5 + [2] * 2)
    parts = folds(labels, 5, seed=3)
    assert sorted(np.concatenate(parts)) == list(range(17))
    assert all((labels[part] == 0).sum() == 2 and (labels[part] == 1).sum() == 1 for part in parts)
    assert all((a == b).all() for a, b in zip(parts, folds(labels, 5, seed=3), strict=True))


def test_held_out_logits_have_not_seen_the_text():
    """Labels at random can be learnt by heart and not be predicted."""
    rng = np.random.default_rng(0)
    states = rng.normal(size=(60, 128)).astype(np.float32)
    labels = rng.integers(0, 3, 60)
    held = cross_validate(states, labels, 3, seed=1)
    assert (held.logits.argmax(1) == labels).mean() < 0.6
    rows = train(states, labels, 3, penalty=1e-4)
    assert ((states @ rows.T).argmax(1) == labels).mean() > 0.9


def test_softmax_sums_to_one_for_large_logits():
    assert softmax(np.array([[1e4, 1e4 - 1]], np.float32)).sum() == pytest.approx(1)


def test_a_threshold_costs_at_most_its_share():
    labels = np.array([0] * 200 + [2] * 50)
    logits = np.zeros((250, 3), np.float32)
    logits[:200, 0] = np.linspace(0, 6, 200)
    logits[200:, 1] = 0.5
    found = calibrate(logits, labels, outside=2)
    assert found.accuracy == 1
    assert found.lost <= 0.01
    assert found.recall == 0.0 or found.threshold > 0.4
    assert calibrate(logits[:200], labels[:200], outside=2).recall is None


@pytest.mark.parametrize(
    ("values", "n_lost", "threshold"),
    [([], 0, 0), ([0.5, 0.7], 0, 0.5), ([0.7, 0.5], 1, 0.7), ([0.99], 0, 0.9)],
)
def test_the_highest_threshold(values, n_lost, threshold):
    assert highest(np.array(values, np.float32), n_lost) == pytest.approx(threshold)
