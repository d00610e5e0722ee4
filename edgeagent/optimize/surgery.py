"""Rewrites a GGUF file with other values and other tensors, in one step."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from edgeagent.errors import InvalidParameter
from edgeagent.optimize.partial_file import partial_file
from edgeagent.optimize.quantize import check_space

Array = np.ndarray[Any, Any]
_ARCHITECTURE = "general.architecture"


def open_file(path: Path) -> Any:
    """A `gguf.GGUFReader` of a file that was inspected before. Raises: InvalidParameter without gguf."""
    try:
        from gguf import GGUFReader
    except ImportError as exc:
        raise InvalidParameter(
            "Writing model files needs the package gguf: `pip install 'edgeagent[optimize]'`."
        ) from exc
    return GGUFReader(path)


def rewrite(
    reader: Any,
    target: Path,
    *,
    value_of: Callable[[str, Any], Any] = lambda name, value: value,
    data_of: Callable[[Any], Array] = lambda tensor: tensor.data,
    added: Mapping[str, int] | None = None,
    check: Callable[[Path], None] = lambda path: None,
) -> None:
    """Write `target` with `value_of` each key and `data_of` each tensor, rows first, in its own type.

    `added`: more keys, uint32. `check` gets the complete file before it takes its place. Raises:
    InvalidParameter for a full disk, and what the functions raise; then there is no file.
    """
    from gguf import GGUFValueType, GGUFWriter

    target.parent.mkdir(parents=True, exist_ok=True)
    check_space(target.parent, int(reader.data.nbytes))
    with partial_file(target, Path(reader.data.filename)) as partial:
        writer = GGUFWriter(partial, reader.fields[_ARCHITECTURE].contents())
        for name, field in reader.fields.items():
            if name.startswith("GGUF.") or name == _ARCHITECTURE:
                continue
            is_array = field.types[0] == GGUFValueType.ARRAY
            value = value_of(name, field.contents())
            writer.add_key_value(name, value, field.types[0], field.types[-1] if is_array else None)
        for name, number in (added or {}).items():
            if name not in reader.fields:
                writer.add_uint32(name, number)
        for tensor in reader.tensors:
            writer.add_tensor(tensor.name, data_of(tensor), raw_dtype=tensor.tensor_type)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        check(partial)
