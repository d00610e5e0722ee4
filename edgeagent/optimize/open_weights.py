"""The weights of a loaded model: how large their activations are, and what rounding does to them.

A matrix that is rounded to a type and back stays F16 in memory: its predictions are nearly those of a file
with that type, without writing one. (Products of quantized weights round the activations, too, which adds
little.) Worker side.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any

import numpy as np

from edgeagent.engine.llama.ggml import (
    TYPE_NUMBERS,
    Product,
    Watch,
    Weight,
    read_weight,
    rounded,
    write_weight,
)
from edgeagent.errors import InvalidParameter
from edgeagent.optimize.protocol import ActivationSums, Errors

Array = np.ndarray[Any, Any]
READABLE = ("F16", "F32")
ZERO = "ZERO"  # in place of a type: a matrix of zeros


class OpenWeights:
    """The matrices of one model that was loaded without mapping. Main thread of the worker only."""

    def __init__(self) -> None:
        self.watch = Watch()
        self._importance: dict[str, Array] = {}
        self._originals: dict[str, Array] = {}
        self._altered: dict[str, tuple[str, bool, bytes]] = {}

    @contextmanager
    def collecting(self, endings: tuple[str, ...] = ()) -> Iterator[Sums]:
        """Sum up the squared activations of the matrices of all decodes in the block, or of those whose names
        have one of these endings."""
        sums = Sums()
        wants = (lambda name: name.endswith(endings)) if endings else _is_matrix
        self.watch.wants, self.watch.take = wants, sums.add
        try:
            yield sums
        finally:
            self.watch.wants = lambda name: False

    def set_importance(self, columns: Mapping[str, bytes]) -> None:
        self._importance = {name: np.frombuffer(data, np.float32) for name, data in columns.items()}

    def alter(
        self, types: Mapping[str, str], zero_columns: Mapping[str, bytes], plain: Sequence[str]
    ) -> None:
        """Round these matrices, those of `plain` without importance, set columns to zeros, and give all
        others what the file has.

        Raises: InvalidParameter.
        """
        without = frozenset(plain)
        wanted = {
            name: (types.get(name, ""), name in without, zero_columns.get(name, b""))
            for name in types.keys() | zero_columns.keys()
        }
        for name in self._altered.keys() - wanted.keys():
            write_weight(self._found(name), self._originals[name])
            del self._altered[name]
        for name, how in wanted.items():
            if self._altered.get(name) != how:
                weight = self._found(name)
                original = self._originals.setdefault(name, _kept(weight))
                write_weight(weight, self._made(weight, original, *how))
                self._altered[name] = how

    def _made(
        self, weight: Weight, original: Array, kind: str, is_plain: bool, columns: bytes
    ) -> Array:
        if kind == ZERO:
            made = np.zeros_like(original)
        elif kind:
            importance = None if is_plain else self._importance_of(weight)
            made = rounded(original.astype(np.float32), kind, importance)
        else:
            made = original.copy()
        zeros = np.frombuffer(columns, np.int32)
        if len(zeros) and not 0 <= int(zeros.min()) <= int(zeros.max()) < made.shape[-1]:
            raise InvalidParameter(
                f"Tensor {weight.name!r} has {made.shape[-1]} columns: name columns below that."
            )
        made[..., zeros] = 0
        return made

    def errors(self, name: str, types: Sequence[str], stride: int) -> Errors:
        """How far a matrix is from its rounding to each type. Raises: InvalidParameter, EngineFailed."""
        weight = self._found(name)
        values = self._originals.get(name)
        rows = (read_weight(weight) if values is None else values.astype(np.float32))[
            :: max(1, stride)
        ]
        columns = self._importance_of(weight)
        counted = np.ones(rows.shape[1], np.float32) if columns is None else columns
        share = weight.shape[1] * weight.shape[2] / len(rows)
        power = max(1e-30, float((rows**2).sum()))

        def found(kind: str, importance: Array | None) -> tuple[float, float]:
            squares = (rows - rounded(rows, kind, importance)) ** 2
            return share * float((squares @ counted).sum()), float(squares.sum()) / power

        weighted = [found(kind, columns) for kind in types]
        plain = weighted if columns is None else [found(kind, None) for kind in types]
        return Errors(
            tuple(error for error, _ in weighted),
            tuple(error for error, _ in plain),
            tuple(min(a, b) for (_, a), (_, b) in zip(weighted, plain, strict=True)),
            tuple(_grid_error(kind) for kind in types),
        )

    def _found(self, name: str) -> Weight:
        weight = self.watch.weights.get(name)
        if weight is None or weight.type.name not in READABLE:
            kind = "unknown" if weight is None else weight.type.name
            raise InvalidParameter(
                f"Tensor {name!r} ({kind}) cannot be altered: it must be F16 or F32 and take part in the "
                "model."
            )
        return weight

    def _importance_of(self, weight: Weight) -> Array | None:
        columns = self._importance.get(weight.name)
        return columns if columns is not None and len(columns) == weight.shape[0] else None


class Sums:
    """Squared activations by column, float64, and over how many rows."""

    def __init__(self) -> None:
        self._sums: dict[str, Array] = {}
        self._rows: dict[str, int] = {}

    def add(self, product: Product) -> None:
        name = product.weight.name
        found = np.einsum("ij,ij->j", product.rows, product.rows, dtype=np.float64)
        self._sums[name] = self._sums[name] + found if name in self._sums else found
        self._rows[name] = self._rows.get(name, 0) + len(product.rows)

    def result(self) -> ActivationSums:
        return ActivationSums(
            {name: values.astype(np.float32).tobytes() for name, values in self._sums.items()},
            dict(self._rows),
        )


def _kept(weight: Weight) -> Array:
    """The values of a matrix as the file has them: float16 or float32."""
    return read_weight(weight).astype(np.float16 if weight.type.name == "F16" else np.float32)


def _is_matrix(name: str) -> bool:
    return name.endswith(".weight") and name.startswith(("blk.", "output.", "token_embd."))


@cache
def _grid_error(kind: str) -> float:
    """The relative squared error of a type on normal random numbers."""
    if kind not in TYPE_NUMBERS:
        raise InvalidParameter(
            f"There is no tensor type {kind!r}: use one of {', '.join(TYPE_NUMBERS)}."
        )
    sample = np.random.default_rng(0).standard_normal((64, 512)).astype(np.float32)
    columns = np.ones(512, np.float32)
    return float(((sample - rounded(sample, kind, columns)) ** 2).sum() / (sample**2).sum())
