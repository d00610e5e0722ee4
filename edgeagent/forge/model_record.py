"""Writes the record that makes a file a shipped model, with its calibrated thresholds."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

from edgeagent.catalog.digest import sha256_of
from edgeagent.catalog.install_record import InstalledModel
from edgeagent.errors import ForgeFailed


def write_record(
    path: Path, quant: str, thresholds: Mapping[str, float], *, is_part: bool = False
) -> Path:
    """Write `model.toml` beside a GGUF file that is in the folder of its id. `thresholds` by domain; they
    are rounded down, so that the item that determined one is still accepted. Raises: ForgeFailed."""
    record = InstalledModel(
        id=path.parent.name,
        file=path.name,
        quant=quant,
        size_bytes=path.stat().st_size,
        sha256=sha256_of(path),
        source="shipped",
        is_part=is_part,
        thresholds={name: math.floor(value * 1e4) / 1e4 for name, value in thresholds.items()},
    )
    target = path.parent / "model.toml"
    try:
        target.write_text(record.to_toml(), encoding="utf-8")
    except OSError as exc:
        raise ForgeFailed(
            f"{target} cannot be written ({exc.strerror}): check the folder."
        ) from exc
    return target
