"""Sets the smallest weights to zero, wherever they are: for study. Nothing gets smaller or faster by it.

Dense kernels multiply zeros as they multiply anything else, and a file stores them. What it shows is how much
of a model its predictions can do without. The importance of a weight is its magnitude, or, with an importance
matrix, that times the root of the mean square of its column's activations, compared within each row. Source:
Sun et al. 2024, "A Simple and Effective Pruning Approach for Large Language Models", arXiv:2306.11695.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from edgeagent.catalog.gguf.header import read_header
from edgeagent.errors import InvalidParameter
from edgeagent.optimize.imatrix_file import read_imatrix
from edgeagent.optimize.sensitivity import quantizable
from edgeagent.optimize.surgery import open_file, rewrite

Array = np.ndarray[Any, Any]
_FINE = ("F16", "F32")
_EMBEDDINGS = ("token_embd.weight", "output.weight")


def zero_smallest(
    source: Path, target: Path, share: float, importance: Path | None = None
) -> tuple[int, int]:
    """Write `target` with `share` of the weights of each row of the layers' matrices set to zero.

    Returns how many are zero, and of how many. Raises: InvalidParameter for a source that is not F16 or F32.
    """
    header = read_header(source)
    wanted = {name for name in quantizable(header) if name not in _EMBEDDINGS}
    for tensor in header.tensors:
        if tensor.name in wanted and tensor.type.name not in _FINE:
            raise InvalidParameter(
                f"Tensor {tensor.name!r} of {source} is {tensor.type.name}: weights are set to zero in F16 "
                f"and F32 files only. Make one by `edgeagent quantize {source.name} F16.gguf --type F16`."
            )
    columns: Mapping[str, Array] = read_imatrix(importance).columns() if importance else {}
    n_zero, n_all = 0, 0

    def data_of(tensor: Any) -> Array:
        nonlocal n_zero, n_all
        data: Array = tensor.data
        if tensor.name not in wanted:
            return data
        made = without_smallest(data, share, columns.get(tensor.name))
        n_zero += int((made == 0).sum())
        n_all += made.size
        return made

    rewrite(open_file(source), target, data_of=data_of)
    return n_zero, n_all


def without_smallest(rows: Array, share: float, activations: Array | None = None) -> Array:
    """`rows` with the least important `share` of each row set to zero."""
    score = np.abs(rows.astype(np.float32))
    if activations is not None:
        score *= np.sqrt(activations)
    n = int(share * rows.shape[-1])
    made = rows.copy()
    if n:
        least = np.argpartition(score, n - 1, axis=-1)[..., :n]
        np.put_along_axis(made, least, 0, axis=-1)
    return made
