"""A model whose weights lie on no grid, made of a quantized one: for measuring how types are chosen.

    scripts/bench dithered model-Q4_1.gguf model-dithered-F16.gguf

A file that was dequantized loses nothing with the type that it had, which says little about weights as they
were trained. Here each weight is moved at random within the interval that was rounded to its value, uniformly
and by a fixed seed: as far from the file as the weights were that it was made of. For Q4_0, Q4_1, Q5_0, Q5_1
and Q8_0, whose blocks begin with the width of that interval.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np

from edgeagent.catalog.gguf.ggml_types import GGML_TYPES
from edgeagent.optimize.quantize import quantize
from edgeagent.optimize.recipe import Recipe
from edgeagent.optimize.surgery import open_file, rewrite

KINDS = ("Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0")
SEED = 1


def widths(tensor: Any) -> np.ndarray[Any, Any] | None:
    """The width of the interval of each block, float32 [n_rows, n_blocks, 1]; None where it has no blocks."""
    kind = GGML_TYPES[int(tensor.tensor_type)]
    if kind.name not in KINDS:
        return None
    blocks = tensor.data.reshape(tensor.data.shape[0], -1, kind.n_bytes)
    found: np.ndarray[Any, Any] = np.ascontiguousarray(blocks[:, :, :2]).view(np.float16)
    return np.abs(found.astype(np.float32))


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="scripts/bench dithered",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("source", type=Path)
    parser.add_argument("target", type=Path)
    given = parser.parse_args()
    plain = given.target.with_name(f".{given.target.name}.plain")
    try:
        quantize(given.source, plain, Recipe("F16"))
        of_blocks = {t.name: widths(t) for t in open_file(given.source).tensors}
        draws = np.random.default_rng(SEED)

        def moved(tensor: Any) -> np.ndarray[Any, Any]:
            values: np.ndarray[Any, Any] = tensor.data
            width = of_blocks[tensor.name]
            if width is None:
                return values
            blocks = values.astype(np.float32).reshape(*width.shape[:2], -1)
            noise = draws.random(blocks.shape, np.float32) - 0.5
            return (blocks + noise * width).reshape(values.shape).astype(values.dtype)

        rewrite(open_file(plain), given.target, data_of=moved)
    finally:
        plain.unlink(missing_ok=True)
    print(f"{given.target}: {given.target.stat().st_size} bytes")
