"""How a model is loaded fastest on a device, as measured there."""

from __future__ import annotations

from typing import Literal

import msgspec


class EngineFlags(msgspec.Struct, frozen=True, kw_only=True):
    """Values of the fields of `EngineConfig` of the same names."""

    n_threads: int
    n_batch: int = 512
    kv_type: Literal["f16", "q8_0", "q4_0"] = "f16"
    flash_attention: Literal["auto", "on", "off"] = "auto"
    repack: bool = True
