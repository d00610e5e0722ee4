"""Smaller copies of GGUF files, made by llama.cpp in this process.

llama.cpp ends the process at some damaged files: where a file is not known to be sound, call this in a child
process (`optimize/quantize.py` does).
"""

from __future__ import annotations

import ctypes
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from edgeagent.catalog.gguf.ggml_types import FILE_TYPES
from edgeagent.engine.llama import bindings
from edgeagent.engine.llama.bindings import lib
from edgeagent.engine.llama.ggml import TYPE_NUMBERS
from edgeagent.errors import EngineFailed

FILE_TYPE_NUMBERS = {name: number for number, name in FILE_TYPES.items()}

# A line of the dry run: "[  3/ 272] blk.0.attn_k.weight - [576, 192, 1, 1], type = f16, size = 0.21 MiB
# -> 0.11 MiB (q8_0)"; the arrow is missing where the type stays.
_PLANNED = re.compile(
    r"\[ *\d+/ *\d+\] (?P<name>\S+) +- \[[^\]]*\], type = *(?P<old>\w+), size = +[\d.]+ MiB"
    r"(?: -> +[\d.]+ MiB \((?P<new>\w+)\))?"
)


@dataclass(frozen=True)
class Quantization:
    """What llama.cpp is told. `file_type`: the mixture, such as "Q4_K_M".

    `tensors`: the type of single tensors by their names in the result, which counts before the mixture.
    `importance`: float32 weights of the columns of a tensor, by its name in the source. `dropped_layers`:
    whole layers to leave out, in ascending order.
    """

    file_type: str
    tensors: Mapping[str, str] = field(default_factory=dict)
    importance: Mapping[str, np.ndarray[Any, Any]] = field(default_factory=dict)
    dropped_layers: tuple[int, ...] = ()
    n_threads: int = 0


def quantize(source: Path, target: Path, how: Quantization) -> None:
    """Write `source` as `target`. The caller renames a complete file. Raises: EngineFailed."""
    _run(source, target, how, dry_run=False)


def planned_types(source: Path, how: Quantization) -> dict[str, str]:
    """The type of each tensor of the result, by llama.cpp's dry run, which writes nothing."""
    log = _run(source, Path("/dev/null"), how, dry_run=True)
    found = {m["name"]: (m["new"] or m["old"]).upper() for m in _PLANNED.finditer(log)}
    if not found:
        raise EngineFailed(f"llama.cpp's dry run of {source.name} names no tensors.")
    return found


def _run(source: Path, target: Path, how: Quantization, *, dry_run: bool) -> str:
    kept: list[Any] = []  # what llama.cpp reads must live until it is done
    params = lib.llama_model_quantize_default_params()
    params.nthread = how.n_threads
    params.ftype = FILE_TYPE_NUMBERS[how.file_type]
    params.allow_requantize = True
    params.dry_run = dry_run
    if how.tensors:
        params.tt_overrides = _overrides(how.tensors, kept)
    if how.importance:
        params.imatrix = _importance(how.importance, kept)
    if how.dropped_layers:
        layers = (ctypes.c_int32 * (len(how.dropped_layers) + 1))(*how.dropped_layers, -1)
        kept.append(layers)
        params.prune_layers = layers
    bindings.start()
    bindings.last_errors.clear()
    with _log() as lines:
        status = lib.llama_model_quantize(str(source).encode(), str(target).encode(), params)
    log = "".join(lines)
    if status != 0:
        said = re.findall(r"failed to quantize: (.+)", log)
        if unknown := re.search(r"unknown model architecture: '([^']*)'", log):
            raise EngineFailed(
                f"llama.cpp does not know the architecture {unknown[1]!r} of {source.name}: take a model of "
                "another one, or a version of edgeagent with a newer llama.cpp."
            )
        raise EngineFailed(
            f"llama.cpp could not quantize {source.name} to {how.file_type}"
            f" ({said[-1].strip() if said else f'status {status}'}): check the file and the disk."
        )
    return log


def _overrides(tensors: Mapping[str, str], kept: list[Any]) -> Any:
    rows = (lib.llama_model_tensor_override * (len(tensors) + 1))()
    for row, (name, kind) in zip(rows, tensors.items(), strict=False):
        row.pattern = f"^{re.escape(name)}$".replace("\\_", "_").encode()
        row.type = TYPE_NUMBERS[kind]
    rows[len(tensors)].pattern = None
    kept.append(rows)
    return rows


def _importance(importance: Mapping[str, np.ndarray[Any, Any]], kept: list[Any]) -> Any:
    rows = (lib.llama_model_imatrix_data * (len(importance) + 1))()
    for row, (name, values) in zip(rows, importance.items(), strict=False):
        flat = np.ascontiguousarray(values, np.float32).ravel()
        kept.append(flat)
        row.name = name.encode()
        row.data = flat.ctypes.data_as(ctypes.POINTER(ctypes.c_float))
        row.size = flat.size
    rows[len(importance)].name = None
    kept.append(rows)
    return rows


@contextmanager
def _log() -> Iterator[list[str]]:
    """Take llama.cpp's log, line parts as they come, instead of passing it on."""
    lines: list[str] = []

    @lib.llama_log_callback  # type: ignore[untyped-decorator]
    def take(level: int, text: bytes, _data: object) -> None:
        lines.append(text.decode("utf-8", "replace"))

    lib.llama_log_set(take, None)
    try:
        yield lines
    finally:
        lib.llama_log_set(bindings._on_log, None)
