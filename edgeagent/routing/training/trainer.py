"""Trains a learned score on outcomes of two models.

Two ridge regressions on hashed words and the shape of the texts. The first is of the benefit, by which
requests are ordered: the quality of the larger model minus that of the small one, plus a share of what the
small one lacks. The gain alone is right in theory, but it is a difference of two noisy outcomes; on subjects
that were not trained on, the sum orders better (RouteLLM's MMLU: APGR 0.57 to 0.54). The second is of the
small model's quality, which an isotonic step function turns into a probability. The step function is fitted
to scores of texts that the regression has not seen (folds within the training data). Where the texts to come
are of other files than those of the training, the folds are of whole files: scores of unseen subjects
spread less (RouteLLM's MMLU, unseen subjects: calibration error 0.027 instead of 0.037).
"""

from __future__ import annotations

from collections.abc import Sequence, Set
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from edgeagent.durable import replace_bytes
from edgeagent.errors import InvalidParameter
from edgeagent.routing.score_policy import PolicyFile, known_share
from edgeagent.routing.text_features import N_COLUMNS, N_WORDS, TextFeatures, features
from edgeagent.routing.training.routellm_measures import isotonic, step_values
from edgeagent.routing.training.sparse_rows import SparseRows, ridge

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

WORDS_PENALTY = 3.0
SHAPE_PENALTY = 100.0
N_INNER_FOLDS = 5
WRONG_SHARE = 0.7
MIN_EXAMPLES = 50
# Of the training texts, this share has fewer known words than the gate lets through.
UNKNOWN_SHARE = 0.01


@dataclass(frozen=True)
class TextMatrix:
    """The features of some texts: hashed words, shape float64 [n, n_shape], and the numbers of the tokens."""

    hashes: SparseRows
    shape: Floats
    words: list[frozenset[int]]

    @classmethod
    def of(cls, texts: Sequence[str]) -> TextMatrix:
        return cls.of_features([features(text) for text in texts])

    @classmethod
    def of_features(cls, found: Sequence[TextFeatures]) -> TextMatrix:
        hashes = SparseRows.of([one.columns for one in found], N_COLUMNS)
        return cls(hashes, np.array([one.shape for one in found]), [one.words for one in found])

    def take(self, rows: Ints) -> TextMatrix:
        return TextMatrix(
            self.hashes.take(rows), self.shape[rows], [self.words[row] for row in rows]
        )


@dataclass(frozen=True)
class Frame:
    """How the columns and the shape of texts are scaled."""

    rarity: Floats
    mean: Floats
    scale: Floats

    @classmethod
    def of(cls, texts: TextMatrix) -> Frame:
        mean, scale = texts.shape.mean(axis=0), texts.shape.std(axis=0)
        scale[scale < 1e-9] = 1.0
        return cls(texts.hashes.rarity(), mean, scale)

    def hashes(self, texts: TextMatrix) -> SparseRows:
        return texts.hashes.scaled(self.rarity)

    def shape(self, texts: TextMatrix) -> Floats:
        return (texts.shape - self.mean) / self.scale


@dataclass(frozen=True)
class Weights:
    """A trained regression of one target in a frame."""

    frame: Frame
    columns: Floats
    bias: float

    def scores(self, texts: TextMatrix) -> Floats:
        n = texts.hashes.n_columns
        hashes, shape = self.frame.hashes(texts), self.frame.shape(texts)
        return hashes.times(self.columns[:n]) + shape @ self.columns[n:] + self.bias


@dataclass(frozen=True)
class Trained:
    """A learned score. `starts` and `heights`: the step function of the probability."""

    benefit: Weights
    right: Weights
    starts: list[float]
    heights: list[float]

    def chances(self, texts: TextMatrix) -> Floats:
        """The probability that the small model is right."""
        return step_values(self.starts, self.heights, self.right.scores(texts))


def fit(texts: TextMatrix, target: Floats, frame: Frame | None = None) -> Weights:
    frame = frame or Frame.of(texts)
    columns, bias = ridge(
        frame.hashes(texts), frame.shape(texts), target,
        words_penalty=WORDS_PENALTY, shape_penalty=SHAPE_PENALTY,
    )  # fmt: skip
    return Weights(frame, columns, bias)


def train(
    texts: TextMatrix, small: Floats, large: Floats, seed: int = 0, groups: Ints | None = None
) -> Trained:
    """`groups` are the files of the texts, where the policy is for texts of others.

    Raises: InvalidParameter for too few texts.
    """
    n = len(small)
    if n < MIN_EXAMPLES:
        raise InvalidParameter(
            f"{n} texts are too few to train on, {MIN_EXAMPLES} are needed: give more data."
        )
    unseen = np.zeros(n)
    for inside, outside in inner_folds(n, groups, seed):
        unseen[outside] = fit(texts.take(inside), small[inside]).scores(texts.take(outside))
    starts, heights = isotonic(unseen, small)
    return Trained(fit(texts, benefit(small, large)), fit(texts, small), starts, heights)


def benefit(small: Floats, large: Floats) -> Floats:
    """What the larger model is worth on each text."""
    return large - small + WRONG_SHARE * (1.0 - small)


def folds(n: int, n_folds: int, seed: int) -> list[tuple[Ints, Ints]]:
    """Rows to train on and rows to score, for each fold; drawn at random."""
    places = np.random.default_rng(seed).permutation(n) % n_folds
    return [(np.flatnonzero(places != k), np.flatnonzero(places == k)) for k in range(n_folds)]


def inner_folds(n: int, groups: Ints | None, seed: int) -> list[tuple[Ints, Ints]]:
    """Folds within the training data: of whole groups where there are enough, else at random."""
    groups = groups if groups is not None else np.zeros(n, np.int64)
    names = np.unique(groups)
    if len(names) < N_INNER_FOLDS:
        return folds(n, N_INNER_FOLDS, seed)
    found = []
    for _, outside in folds(len(names), N_INNER_FOLDS, seed):
        is_outside = np.isin(groups, names[outside])
        found.append((np.flatnonzero(~is_outside), np.flatnonzero(is_outside)))
    return found


def policy_file(
    names: tuple[str, str], texts: TextMatrix, trained: Trained, share_large: float
) -> PolicyFile:
    """The file for the daemon, for a small and a large model. `share_large` of such texts go to the larger
    one."""
    scores, frame = trained.benefit.scores(texts), trained.benefit.frame
    return PolicyFile(
        small=names[0],
        large=names[1],
        n_examples=texts.hashes.n_rows,
        rarity=frame.rarity.astype("<f4").tobytes(),
        benefit=trained.benefit.columns.astype("<f4").tobytes(),
        right=trained.right.columns.astype("<f4").tobytes(),
        benefit_bias=trained.benefit.bias,
        right_bias=trained.right.bias,
        shape_mean=frame.mean.tolist(),
        shape_scale=frame.scale.tolist(),
        known=_known_words(texts.words),
        min_known=_min_known(texts),
        scores=trained.starts,
        chances=trained.heights,
        threshold=float(np.quantile(scores, 1.0 - share_large)),
    )


def _min_known(texts: TextMatrix) -> float:
    """The share of known words that nearly all texts have when half of the texts are unseen."""
    known = _known_words(texts.words[::2])
    shares = [known_share(words, known) for words in texts.words[1::2]]
    return float(np.quantile(shares, UNKNOWN_SHARE))


def _known_words(texts: Sequence[Set[int]]) -> bytes:
    """The bits of all words of some texts."""
    known = bytearray(N_WORDS // 8)
    for word in set().union(*texts):
        known[word >> 3] |= 1 << (word & 7)
    return bytes(known)


def write_policy(file: PolicyFile, path: Path) -> None:
    replace_bytes(path, msgspec.msgpack.encode(file))
