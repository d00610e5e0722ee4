"""Reads a safetensors file: a JSON header, then raw little-endian arrays.

Source: the safetensors format description (8 bytes of header length, JSON, data).
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np

from edgeagent.errors import InstallFailed

MAX_HEADER_BYTES = 16 * 1024 * 1024
_DTYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "I64": "<i8", "I32": "<i4", "U8": "u1"}


def read_tensors(path: Path) -> dict[str, np.ndarray[Any, Any]]:
    """Name -> array, mapped from the file and not read yet.

    Raises: InstallFailed if the header is invalid or an array is not inside the file.
    """
    try:
        file_bytes = path.stat().st_size
        with path.open("rb") as file:
            n_header = int.from_bytes(file.read(8), "little")
            if not 2 <= n_header <= min(MAX_HEADER_BYTES, file_bytes - 8):
                raise ValueError(f"a header of {n_header} bytes in a file of {file_bytes}")
            header = json.loads(file.read(n_header))
        data = np.memmap(path, dtype=np.uint8, mode="r", offset=8 + n_header)
        tensors = {}
        for name, info in header.items():
            if name != "__metadata__":
                tensors[name] = _array(data, info)
        return tensors
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise InstallFailed(
            f"{path.name!r} is not a safetensors file ({error}): install the model again"
        ) from error


def _array(data: np.ndarray[Any, Any], info: dict[str, Any]) -> np.ndarray[Any, Any]:
    begin, end = info["data_offsets"]
    shape = [int(n) for n in info["shape"]]
    dtype = np.dtype(_DTYPES[info["dtype"]])
    if not 0 <= begin <= end <= data.size or math.prod(shape) * dtype.itemsize != end - begin:
        raise ValueError(f"bytes {begin} to {end} of {data.size} for the shape {shape}")
    return data[begin:end].view(dtype).reshape(shape)
