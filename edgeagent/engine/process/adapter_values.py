"""Whether the matrices of a LoRA adapter hold numbers. For workers: the daemon has no numpy."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from edgeagent.catalog.gguf.adapter_header import refused
from edgeagent.catalog.gguf.header import read_header


def check_values(path: Path) -> None:
    """Refuse values that are no numbers: every answer would be nonsense. Raises: GGUFRefused."""
    header = read_header(path)
    for tensor in header.tensors:
        at = header.data_offset + tensor.offset
        raw = np.memmap(header.path, np.uint8, "r", at, (tensor.n_bytes,))
        match tensor.type.name:
            case "F32":
                is_good = bool(np.isfinite(raw.view("<f4")).all())
            case "F16":
                is_good = bool(np.isfinite(raw.view("<f2")).all())
            case "BF16":
                is_good = not bool((raw.view("<u2") & 0x7F80 == 0x7F80).any())
            case _:  # Q8_0: a scale before 32 numbers
                scales = np.ascontiguousarray(raw.reshape(-1, 34)[:, :2])
                is_good = bool(np.isfinite(scales.view("<f2")).all())
        if not is_good:
            raise refused(header, f"has values in {tensor.name!r} that are no numbers")
