"""The file of a base model in memory, and what is written from it: tensors as they are stored, with some of
them replaced.

Needs the package gguf, and no torch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeagent.errors import ForgeFailed

if TYPE_CHECKING:
    from gguf import GGUFReader, GGUFWriter

Floats = np.ndarray[Any, np.dtype[np.float32]]
Fields = Mapping[str, tuple[Any, Any, Any]]
Stored = tuple[np.ndarray[Any, Any], Any]


@dataclass(frozen=True, kw_only=True)
class TrunkFile:
    """`fields`: metadata by name, as value, type and type of the items; `tensors`: name to the stored array
    and its GGML type."""

    path: Path
    fields: Fields
    tensors: Mapping[str, Stored]

    @property
    def name(self) -> str:
        return self.path.parent.name

    @property
    def n_params(self) -> int:
        return sum(int(np.prod(self._dense_shape(name))) for name in self.tensors)

    def dense(self, name: str) -> Floats:
        """A tensor as float32."""
        return dequantized(*self.tensors[name])

    def _dense_shape(self, name: str) -> tuple[int, ...]:
        """The dimensions of a tensor, whatever its type."""
        from gguf.quants import quant_shape_from_byte_shape

        data, kind = self.tensors[name]
        if data.dtype != np.uint8:
            return tuple(data.shape)
        return tuple(quant_shape_from_byte_shape(data.shape, kind))


def opened(path: Path) -> GGUFReader:
    """The package's reader of a file. It slices the file for every token of the vocabulary, which takes half
    of the time on an array that is no memory map.

    Raises: ForgeFailed without the package, OSError and ValueError for a damaged file.
    """
    try:
        from gguf import GGUFReader
    except ImportError as exc:
        raise ForgeFailed("Training needs gguf: run pip install 'edgeagent[intents]'.") from exc

    class Reader(GGUFReader):
        def __setattr__(self, name: str, value: Any) -> None:
            super().__setattr__(name, np.asarray(value) if name == "data" else value)

    return Reader(path)


def dequantized(data: np.ndarray[Any, Any], kind: Any) -> Floats:
    """A stored array as float32."""
    from gguf.quants import dequantize

    return np.asarray(dequantize(data, kind), np.float32)


def quantized(weight: Floats, kind: Any) -> Stored:
    """A tensor as a GGML type stores it."""
    from gguf.quants import quantize

    return quantize(np.ascontiguousarray(weight, np.float32), kind), kind


def replaced(
    tensors: Mapping[str, Stored], weights: Mapping[str, Floats] | None
) -> dict[str, Stored]:
    """The tensors, some with other weights in the type that they had."""
    found = dict(tensors)
    for name, weight in (weights or {}).items():
        found[name] = quantized(weight, found[name][1])
    return found


def write_gguf(
    target: Path,
    architecture: str,
    fields: Fields,
    tensors: Mapping[str, Stored],
    add: Callable[[GGUFWriter], None],
) -> None:
    """Write a model whole or not at all; `add` writes more metadata. Raises: ForgeFailed."""
    import gguf

    partial = target.with_name(f".{target.name}.partial")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        writer = gguf.GGUFWriter(partial, architecture)
        for key, (value, type_, item) in fields.items():
            is_array = type_ == gguf.GGUFValueType.ARRAY
            writer.add_key_value(key, value, type_, item if is_array else None)
        add(writer)
        for tensor, (data, kind) in tensors.items():
            writer.add_tensor(tensor, data, raw_dtype=kind)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        partial.replace(target)
    except OSError as exc:
        raise ForgeFailed(
            f"{target} cannot be written ({exc.strerror or exc}): check the disk."
        ) from exc
    finally:
        partial.unlink(missing_ok=True)
