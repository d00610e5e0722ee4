"""Smaller copies of exported models, by llama.cpp, in this process."""

from __future__ import annotations

from pathlib import Path

from edgeagent.engine.llama import quantization
from edgeagent.engine.llama.quantization import FILE_TYPE_NUMBERS, Quantization
from edgeagent.errors import EngineFailed, ForgeFailed


def quantize(source: Path, target: Path, quant: str, n_threads: int = 0) -> None:
    """Write `source` (f16 or f32) as `target` with weights of type `quant`. Raises: ForgeFailed.

    `n_threads` 0 uses all cores. The result is renamed into place only when it is complete.
    """
    if quant not in FILE_TYPE_NUMBERS:
        raise ForgeFailed(
            f"There is no quantization {quant!r}: use one of {', '.join(FILE_TYPE_NUMBERS)}."
        )
    if not source.is_file():
        raise ForgeFailed(f"{source} is missing: export the model first.")
    partial = target.with_suffix(".partial")
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        quantization.quantize(source, partial, Quantization(quant, n_threads=n_threads))
    except EngineFailed as exc:
        partial.unlink(missing_ok=True)
        raise ForgeFailed(exc.message) from exc
    partial.replace(target)
