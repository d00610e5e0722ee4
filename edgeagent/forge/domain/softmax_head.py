"""A linear classifier on hidden states, by multinomial logistic regression in numpy.

It has no bias, because a logit in the exported file is a row times the state and nothing else. All states
have a large part in common, their mean, which takes the place of a bias.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgeagent.forge.domain.trunk_file import Floats

Ids = np.ndarray[Any, np.dtype[np.int64]]
N_STEPS = 200
LEAST_STEPS = 30
_ROWS = 8192  # whose logits are in memory at a time
PENALTIES = (1e-2, 1e-3, 1e-4)


@dataclass(frozen=True)
class Basis:
    """A linear map of states to coordinates of similar size, the direction of their mean among them:
    float32 [n_embd, n_embd]."""

    matrix: Floats

    @classmethod
    def of(cls, states: Floats) -> Basis:
        mean = states.mean(0)
        axis = mean / max(float(np.linalg.norm(mean)), 1e-9)
        along = states @ axis
        rest = states - np.outer(along, axis)
        spread = max(float(np.sqrt((rest**2).sum(1).mean())), 1e-9)
        level = max(float(np.sqrt((along**2).mean())), 1e-9)
        identity = np.eye(len(axis), dtype=np.float32)
        outer = np.outer(axis, axis).astype(np.float32)
        return cls((identity - outer) / np.float32(spread) + outer / np.float32(level))


def train(
    states: Floats,
    labels: Ids,
    n_classes: int,
    *,
    penalty: float,
    targets: Floats | None = None,
    weights: Floats | None = None,
    n_steps: int = N_STEPS,
    tell: Callable[[int], None] = lambda n: None,
    until: float | None = None,
) -> Floats:
    """Rows whose products with states are logits: float32 [n_classes, n_embd].

    `targets` are probabilities to learn instead of labels; by default each class counts the same, whatever
    its number of texts. Source: Nesterov 1983, accelerated gradient.
    """
    basis = Basis.of(states).matrix
    x = states @ basis
    names = np.eye(n_classes, dtype=np.float32)
    if weights is None:
        counts = np.maximum(np.bincount(labels, minlength=n_classes), 1)
        weights = (1 / counts[labels]).astype(np.float32)
    share = (weights / weights.sum()).astype(np.float32)
    # The largest eigenvalue of the weighted covariance bounds the curvature.
    largest = float(np.linalg.eigvalsh((x * share[:, None]).T @ x)[-1])
    rate = np.float32(1 / (0.5 * largest + penalty))
    rows = np.zeros((n_classes, x.shape[1]), np.float32)
    before = rows
    for step in range(n_steps):
        ahead = rows + np.float32(step / (step + 3)) * (rows - before)
        before = rows
        slope = np.float32(penalty) * ahead
        for start in range(0, len(x), _ROWS):
            part = slice(start, start + _ROWS)
            y = targets[part] if targets is not None else names[labels[part]]
            wrong = (softmax(x[part] @ ahead.T) - y) * share[part, None]
            slope += wrong.T @ x[part]
        rows = ahead - rate * slope
        if step % 50 == 49 or len(x) > _ROWS:
            tell(50 if len(x) <= _ROWS else 1)
        if until is not None and step + 1 >= LEAST_STEPS and time.monotonic() > until:
            break
    return np.asarray(rows @ basis.T, np.float32)


def softmax(logits: Floats) -> Floats:
    """Probabilities along the last axis."""
    shares = np.exp(logits - logits.max(-1, keepdims=True))
    return np.asarray(shares / shares.sum(-1, keepdims=True), np.float32)


def folds(labels: Ids, n_folds: int, seed: int) -> list[Ids]:
    """The numbers of texts in each fold, every class spread evenly; the same for the same seed."""
    rng = np.random.default_rng(seed)
    fold = np.empty(len(labels), np.int64)
    offset = 0
    for label in np.unique(labels):
        mine = rng.permutation(np.flatnonzero(labels == label))
        fold[mine] = (np.arange(len(mine)) + offset) % n_folds
        offset += len(mine)
    return [np.flatnonzero(fold == n) for n in range(n_folds)]


@dataclass(frozen=True)
class HeldOut:
    """Logits of texts by a head that was trained without them, and the best penalty."""

    logits: Floats
    penalty: float


def cross_validate(
    states: Floats,
    labels: Ids,
    n_classes: int,
    *,
    seed: int,
    n_folds: int = 5,
    penalties: Sequence[float] = PENALTIES,
    groups: Ids | None = None,
    tell: Callable[[int], None] = lambda n: None,
    until: float | None = None,
) -> HeldOut:
    """The penalty with the smallest loss, and the logits of each text by a head that has not seen it. After
    the time `until` (monotonic) no other penalty is tried.

    `groups`: texts of one group (a text and its variants) are in one fold; by default each is its own.
    """
    if groups is None:
        groups = np.arange(len(labels))
    _, first, inverse = np.unique(groups, return_index=True, return_inverse=True)
    parts = [np.isin(inverse, part) for part in folds(labels[first], n_folds, seed)]
    best: tuple[float, float, Floats] | None = None
    for penalty in penalties:
        logits = np.zeros((len(labels), n_classes), np.float32)
        for mine in parts:
            rows = train(states[~mine], labels[~mine], n_classes, penalty=penalty, until=until)
            logits[mine] = states[mine] @ rows.T
            tell(1)
        shares = softmax(logits)[np.arange(len(labels)), labels]
        loss = float(-np.log(np.maximum(shares, 1e-9)).mean())
        if best is None or loss < best[0]:
            best = (loss, penalty, logits)
        if until is not None and time.monotonic() > until:
            break
    assert best is not None
    return HeldOut(best[2], best[1])
