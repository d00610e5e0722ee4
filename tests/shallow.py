"""SmolLM2 with two of its thirty layers: its vocabulary, its chat template, and a tenth of its computing.

What it says means nothing. `python -m tests.shallow SOURCE TARGET` writes one.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

from tests.catalog.mutants import U32, Key, Parts, Tensor, scalar, take_apart

N_LAYERS = 2
_COUNT = b"llama.block_count"


def write_shallow(source: Path, target: Path) -> None:
    """Write the model in `source` without the layers behind the first `N_LAYERS`."""
    parts = take_apart(source)
    keys = [key for key in parts.keys if key.name != _COUNT]
    keys.append(Key(_COUNT, U32, scalar(U32, N_LAYERS)))
    tensors, data = _kept(parts)
    target.write_bytes(replace(parts, keys=tuple(keys), tensors=tensors, data=data).encode())


def _kept(parts: Parts) -> tuple[tuple[Tensor, ...], bytes]:
    """The tensors that stay, one behind the other, and their data."""
    ordered = sorted(parts.tensors, key=lambda tensor: tensor.offset)
    ends = [tensor.offset for tensor in ordered[1:]] + [len(parts.data)]
    kept: list[Tensor] = []
    data = bytearray()
    for tensor, end in zip(ordered, ends, strict=True):
        if _layer(tensor) < N_LAYERS:
            kept.append(replace(tensor, offset=len(data)))
            data += parts.data[tensor.offset : end]
    return tuple(kept), bytes(data)


def _layer(tensor: Tensor) -> int:
    """The number of its layer; -1 for what is in none."""
    name = tensor.name.decode().split(".")
    return int(name[1]) if name[0] == "blk" else -1


if __name__ == "__main__":
    write_shallow(Path(sys.argv[1]), Path(sys.argv[2]))
