"""Ollama's `options`: how tokens are drawn."""

from __future__ import annotations

from typing import Annotated, ClassVar

import msgspec
from pydantic import BeforeValidator, Field

from edgeagent.api.schemas.common import StopText
from edgeagent.api.schemas.marks import Ignored, RequestModel
from edgeagent.types import Sampling

MAX_STOPS = 16
# Ollama repeats a penalty over the whole context for -1; ours looks back this far at most.
MAX_LAST_N = 4096

# JSON numbers of some clients are all floats.
Int = Annotated[
    int, BeforeValidator(lambda v: int(v) if isinstance(v, float) and v.is_integer() else v)
]


class OllamaOptions(RequestModel):
    """How to draw tokens. What says how a model is loaded is this server's own to decide."""

    temperature: float | None = Field(None, ge=0, le=2, allow_inf_nan=False)
    top_k: Int | None = Field(None, ge=0, le=1_000_000)
    top_p: float | None = Field(None, ge=0, le=1, allow_inf_nan=False)
    min_p: float | None = Field(None, ge=0, le=1, allow_inf_nan=False)
    typical_p: float | None = Field(None, gt=0, le=1, allow_inf_nan=False)
    repeat_penalty: float | None = Field(None, gt=0, le=10, allow_inf_nan=False)
    repeat_last_n: Int | None = Field(None, ge=-1, le=MAX_LAST_N)
    presence_penalty: float | None = Field(None, ge=-2, le=2, allow_inf_nan=False)
    frequency_penalty: float | None = Field(None, ge=-2, le=2, allow_inf_nan=False)
    seed: Int | None = Field(None, ge=-(1 << 63), lt=1 << 63)
    stop: StopText | Annotated[list[StopText], Field(max_length=MAX_STOPS)] | None = None
    num_predict: Int | None = Field(
        None, ge=-2, le=1 << 20, description="below 1: as many as the server's own bound"
    )
    num_ctx: Annotated[Int | None, Ignored("a context is as long as `n_ctx` in the settings")] = (
        None
    )
    num_keep: Annotated[Int | None, Ignored("what is too long is refused, not cut")] = None
    num_batch: Annotated[Int | None, Ignored()] = None
    num_gpu: Annotated[Int | None, Ignored()] = None
    main_gpu: Annotated[Int | None, Ignored()] = None
    num_thread: Annotated[Int | None, Ignored("threads follow the cores that are free")] = None
    num_gqa: Annotated[Int | None, Ignored()] = None
    numa: Annotated[bool | None, Ignored()] = None
    low_vram: Annotated[bool | None, Ignored()] = None
    f16_kv: Annotated[bool | None, Ignored()] = None
    logits_all: Annotated[bool | None, Ignored()] = None
    vocab_only: Annotated[bool | None, Ignored()] = None
    use_mmap: Annotated[bool | None, Ignored()] = None
    use_mlock: Annotated[bool | None, Ignored()] = None
    embedding_only: Annotated[bool | None, Ignored()] = None
    mirostat_tau: Annotated[float | None, Ignored("without `mirostat`")] = None
    mirostat_eta: Annotated[float | None, Ignored("without `mirostat`")] = None
    penalize_newline: Annotated[bool | None, Ignored()] = None

    refused: ClassVar[dict[str, tuple[object, ...]]] = {"mirostat": (0,), "tfs_z": (0, 1)}

    def sampling(self, defaults: Sampling) -> Sampling:
        """What the request says over what the model's defaults say."""
        names = (
            "temperature", "top_k", "top_p", "min_p", "typical_p", "repeat_penalty",
            "presence_penalty", "frequency_penalty", "seed",
        )  # fmt: skip
        given = {name: v for name in names if (v := getattr(self, name)) is not None}
        if self.repeat_last_n is not None:
            given["repeat_last_n"] = MAX_LAST_N if self.repeat_last_n < 0 else self.repeat_last_n
        return msgspec.structs.replace(defaults, **given)

    @property
    def max_tokens(self) -> int | None:
        asked = self.num_predict
        return asked if asked is not None and asked > 0 else None

    def stops(self) -> list[str]:
        return [self.stop] if isinstance(self.stop, str) else self.stop or []
