"""Which tokens of a prediction are kept, so that a reference needs no dense dump. Worker side."""

from __future__ import annotations

from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]


class KeptTokens:
    """The `n_top` most probable tokens, and `n_tail` drawn from the rest by their probability.

    A vocabulary of up to `n_top` tokens is kept whole. The draw is made from `seed`.
    """

    def __init__(self, n_top: int, n_tail: int, seed: int) -> None:
        self._n_top = n_top
        self._n_tail = n_tail
        self._random = np.random.default_rng(seed)

    def of(self, logp: Array) -> Array:
        """The tokens of each row of log-probabilities, float32 [n, n_vocab]: int32 [n, n_kept]."""
        n, n_vocab = logp.shape
        if self._n_top >= n_vocab:
            return np.tile(np.arange(n_vocab, dtype=np.int32), (n, 1))
        if self._n_top == 0:
            return np.empty((n, 0), np.int32)
        top = np.argpartition(logp, n_vocab - self._n_top, axis=1)[:, n_vocab - self._n_top :]
        if self._n_tail == 0:
            return top.astype(np.int32)
        return np.concatenate((top, self._tail(logp, top)), axis=1).astype(np.int32)

    def _tail(self, logp: Array, top: Array) -> Array:
        drawn = self._random.random((len(logp), self._n_tail))
        found = np.empty(drawn.shape, np.int64)
        for row, values in enumerate(logp):
            weights = np.exp(values.astype(np.float64))
            weights[top[row]] = 0.0
            sums = np.cumsum(weights)
            found[row] = np.searchsorted(sums, drawn[row] * sums[-1], side="right")
        last: Array = np.minimum(found, logp.shape[1] - 1)
        return last


class SentTokens:
    """Tokens chosen beforehand, int32 [n_scored, n_ids], row by row."""

    def __init__(self, ids: Array) -> None:
        self._ids = ids
        self._at = 0

    def of(self, logp: Array) -> Array:
        """The next rows."""
        found = self._ids[self._at : self._at + len(logp)]
        self._at += len(logp)
        return found
