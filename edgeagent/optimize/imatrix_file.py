"""The file of an importance matrix, in llama.cpp's format: GGUF with sums of squared activations.

llama-quantize reads it, and we read those of llama-imatrix. Keys of ours say what it was made of.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgeagent.catalog.gguf.header import Header, read_header
from edgeagent.errors import InvalidParameter
from edgeagent.optimize.partial_file import partial_file

Array = np.ndarray[Any, Any]
_SUMS, _COUNTS = ".in_sum2", ".counts"
_DATA, _MODEL = "edgeagent.data_sha256", "edgeagent.model_sha256"
_IN_ALL = "edgeagent.chunks_in_all"


@dataclass(eq=False)
class ImportanceMatrix:
    """How large the activations of each matrix were.

    `sums`: squares summed by column, float64 [n_columns], over `n_rows` rows; by the names of the matrices.
    `data_sha256` and `model_sha256` are None for files of other programs.
    """

    sums: dict[str, Array]
    n_rows: dict[str, int]
    n_chunks: int
    chunk_tokens: int
    data_sha256: str | None = None
    model_sha256: str | None = None
    n_chunks_in_all: int = 0

    @property
    def is_complete(self) -> bool:
        """Whether all chunks of the texts are in it."""
        return 0 < self.n_chunks_in_all <= self.n_chunks

    def columns(self) -> dict[str, Array]:
        """The mean square of each column, float32: the weight of its errors."""
        return {
            name: (values / max(1, self.n_rows[name])).astype(np.float32)
            for name, values in self.sums.items()
        }


def write_imatrix(matrix: ImportanceMatrix, datasets: list[str], path: Path) -> None:
    """Replace the file at `path` in one step. Raises: InvalidParameter without the package gguf; OSError."""
    try:
        from gguf import GGUFWriter
    except ImportError as exc:
        raise InvalidParameter(
            "Importance matrices need the package gguf: `pip install 'edgeagent[optimize]'`."
        ) from exc
    with partial_file(path, None) as draft:
        writer = GGUFWriter(draft, "imatrix")
        writer.add_type("imatrix")
        writer.add_array("imatrix.datasets", datasets)
        writer.add_uint32("imatrix.chunk_count", matrix.n_chunks)
        writer.add_uint32("imatrix.chunk_size", matrix.chunk_tokens)
        for key, value in ((_DATA, matrix.data_sha256), (_MODEL, matrix.model_sha256)):
            if value is not None:
                writer.add_string(key, value)
        writer.add_uint32(_IN_ALL, matrix.n_chunks_in_all)
        for name in sorted(matrix.sums):
            writer.add_tensor(name + _SUMS, matrix.sums[name].astype(np.float32)[None])
            writer.add_tensor(name + _COUNTS, np.array([[matrix.n_rows[name]]], np.float32))
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()


def read_imatrix(path: Path) -> ImportanceMatrix:
    """Read a file of ours or of llama-imatrix (since August 2025). Raises: GGUFRefused, InvalidParameter."""
    header = read_header(path)
    if header.metadata.get("general.type") != "imatrix":
        raise InvalidParameter(
            f"{path} is not an importance matrix: make one by `edgeagent imatrix`."
        )
    tensors = {tensor.name: tensor for tensor in header.tensors}
    sums, n_rows = {}, {}
    for name, tensor in tensors.items():
        counts = tensors.get(name.removesuffix(_SUMS) + _COUNTS)
        if not name.endswith(_SUMS) or counts is None or counts.n_elements != 1:
            continue  # experts have a count for each matrix; they are quantized without weights
        if {tensor.type.name, counts.type.name} != {"F32"}:
            raise InvalidParameter(f"{path} has sums that are not F32: make it again.")
        matrix = name.removesuffix(_SUMS)
        sums[matrix] = _values(header, tensor.offset, tensor.n_elements).astype(np.float64)
        n = float(_values(header, counts.offset, 1)[0])
        if not (np.isfinite(sums[matrix]).all() and sums[matrix].min() >= 0 and 0 <= n < 2**53):
            raise InvalidParameter(
                f"{path} has sums of squares of {matrix} that cannot be: make it again."
            )
        n_rows[matrix] = int(n)
    if not sums:
        raise InvalidParameter(f"{path} has no sums of activations: make it again.")
    return ImportanceMatrix(
        sums, n_rows, _number(header, "imatrix.chunk_count"), _number(header, "imatrix.chunk_size"),
        _text(header, _DATA), _text(header, _MODEL), _number(header, _IN_ALL),
    )  # fmt: skip


def _values(header: Header, offset: int, n: int) -> Array:
    return np.fromfile(header.path, np.float32, n, offset=header.data_offset + offset)


def _number(header: Header, key: str) -> int:
    value = header.metadata.get(key)
    return value if isinstance(value, int) else 0


def _text(header: Header, key: str) -> str | None:
    value = header.metadata.get(key)
    return value if isinstance(value, str) else None
