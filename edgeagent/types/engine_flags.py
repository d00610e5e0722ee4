"""How a model is loaded fastest on a device, as measured there."""

from __future__ import annotations

from typing import Literal

import msgspec

KVType = Literal["f16", "q8_0", "q4_0"]
FlashAttention = Literal["auto", "on", "off"]


class CacheFlags(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How keys and values are kept, which belongs to the quality of a file as its tensor types do."""

    kv_type: KVType = "f16"
    flash_attention: FlashAttention = "auto"

    def __str__(self) -> str:
        parts = [f"KV {self.kv_type}"] if self.kv_type != "f16" else []
        parts += (
            [f"flash attention {self.flash_attention}"] if self.flash_attention != "auto" else []
        )
        return ", ".join(parts)


class EngineFlags(msgspec.Struct, frozen=True, kw_only=True):
    """Values of the fields of `EngineConfig` of the same names."""

    n_threads: int
    n_batch: int = 512
    kv_type: KVType = "f16"
    flash_attention: FlashAttention = "auto"
    repack: bool = True
