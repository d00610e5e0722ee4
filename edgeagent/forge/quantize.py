"""Smaller copies of GGUF files, by llama.cpp, in this process."""

from __future__ import annotations

from pathlib import Path

from edgeagent.engine.llama.bindings import lib
from edgeagent.errors import ForgeFailed

# llama.h: enum llama_ftype.
FILE_TYPES = {
    "F16": 1,
    "Q4_0": 2,
    "Q4_1": 3,
    "Q8_0": 7,
    "Q5_0": 8,
    "Q5_1": 9,
    "Q4_K_M": 15,
    "Q6_K": 18,
}


def quantize(source: Path, target: Path, quant: str, n_threads: int = 0) -> None:
    """Write `source` (f16 or f32) as `target` with weights of type `quant`. Raises: ForgeFailed.

    `n_threads` 0 uses all cores. The result is renamed into place only when it is complete.
    """
    if quant not in FILE_TYPES:
        raise ForgeFailed(
            f"There is no quantization {quant!r}: use one of {', '.join(FILE_TYPES)}."
        )
    if not source.is_file():
        raise ForgeFailed(f"{source} is missing: export the model first.")
    params = lib.llama_model_quantize_default_params()
    params.nthread = n_threads
    params.ftype = FILE_TYPES[quant]
    partial = target.with_suffix(".partial")
    target.parent.mkdir(parents=True, exist_ok=True)
    status = lib.llama_model_quantize(str(source).encode(), str(partial).encode(), params)
    if status != 0:
        partial.unlink(missing_ok=True)
        raise ForgeFailed(
            f"llama.cpp could not quantize {source} to {quant} (status {status}): check the disk and the "
            "file."
        )
    partial.replace(target)
