"""A sparse matrix by rows, and ridge regression on it by conjugate gradients."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

MOST_STEPS = 30
TOLERANCE = 3e-3


@dataclass(frozen=True)
class SparseRows:
    """`starts` int64 [n_rows] into `columns` int64 [n] and `values` float64 [n]; every row has a value."""

    starts: Ints
    columns: Ints
    values: Floats
    n_columns: int

    @classmethod
    def of(cls, rows: Sequence[Mapping[int, float]], n_columns: int) -> SparseRows:
        sizes = np.array([max(1, len(row)) for row in rows])
        starts = np.concatenate([[0], np.cumsum(sizes)[:-1]]).astype(np.int64)
        columns = [column for row in rows for column in (row or {0: 0.0})]
        values = [value for row in rows for value in (row or {0: 0.0}).values()]
        return cls(starts, np.array(columns, np.int64), np.array(values, np.float64), n_columns)

    @property
    def n_rows(self) -> int:
        return len(self.starts)

    @cached_property
    def _rows(self) -> Ints:
        return np.repeat(np.arange(self.n_rows), np.diff([*self.starts, len(self.columns)]))

    @cached_property
    def _by_column(self) -> tuple[Ints, Ints, Floats, Ints]:
        order = np.argsort(self.columns, kind="stable")
        present, starts = np.unique(self.columns[order], return_index=True)
        return present, starts, self.values[order], self._rows[order]

    def take(self, rows: Ints) -> SparseRows:
        """Some of the rows."""
        ends = np.append(self.starts[1:], len(self.columns))
        sizes = ends[rows] - self.starts[rows]
        starts = np.concatenate([[0], np.cumsum(sizes)[:-1]]).astype(np.int64)
        at = np.repeat(self.starts[rows] - starts, sizes) + np.arange(sizes.sum())
        return SparseRows(starts, self.columns[at], self.values[at], self.n_columns)

    def rarity(self) -> Floats:
        """A factor for each column, greater where fewer rows have it: ln((1 + rows) / (1 + rows with it))."""
        n_with = np.bincount(self.columns, minlength=self.n_columns)
        return np.asarray(np.log((1 + self.n_rows) / (1 + n_with)))

    def scaled(self, factors: Floats) -> SparseRows:
        """The matrix with a factor for each column, and rows of length 1."""
        values = self.values * factors[self.columns]
        lengths = np.sqrt(np.add.reduceat(values * values, self.starts))
        lengths[lengths == 0.0] = 1.0
        return SparseRows(self.starts, self.columns, values / lengths[self._rows], self.n_columns)

    def times(self, weights: Floats) -> Floats:
        """The matrix times a vector of columns: float64 [n_rows]."""
        return np.add.reduceat(self.values * weights[self.columns], self.starts)

    def transposed_times(self, weights: Floats) -> Floats:
        """The transposed matrix times a vector of rows: float64 [n_columns]."""
        present, starts, values, rows = self._by_column
        out = np.zeros(self.n_columns)
        out[present] = np.add.reduceat(values * weights[rows], starts)
        return out

    def without_empty_columns(self) -> tuple[SparseRows, Ints]:
        """The matrix with only the columns that have a value; and which ones these are."""
        present, columns = np.unique(self.columns, return_inverse=True)
        return SparseRows(self.starts, columns, self.values, len(present)), present


def ridge(
    words: SparseRows, shape: Floats, target: Floats, *, words_penalty: float, shape_penalty: float
) -> tuple[Floats, float]:
    """Weights of the columns of `words`, then of `shape` float64 [n, n_shape], and the bias.

    Minimizes the squared error plus penalties times the squares of the weights; the bias is the mean.
    A column without a value has the weight 0 in every step, and most of the 65,536 have
    none: they are left out.
    """
    n_all = words.n_columns
    words, present = words.without_empty_columns()
    n_columns = words.n_columns
    penalty = np.full(n_columns + shape.shape[1], shape_penalty)
    penalty[:n_columns] = words_penalty
    bias = float(target.mean())

    def forward(weights: Floats) -> Floats:
        return words.times(weights[:n_columns]) + shape @ weights[n_columns:]

    def backward(errors: Floats) -> Floats:
        return np.concatenate([words.transposed_times(errors), shape.T @ errors])

    weights = np.zeros(len(penalty))
    residual = backward(target - bias)
    direction, size = residual.copy(), float(residual @ residual)
    stop = TOLERANCE**2 * size
    for _ in range(MOST_STEPS):
        if size <= stop:
            break
        image = backward(forward(direction)) + penalty * direction
        step = size / float(direction @ image)
        weights += step * direction
        residual -= step * image
        new_size = float(residual @ residual)
        direction = residual + new_size / size * direction
        size = new_size
    spread = np.zeros(n_all + shape.shape[1])
    spread[present] = weights[:n_columns]
    spread[n_all:] = weights[n_columns:]
    return spread, bias
