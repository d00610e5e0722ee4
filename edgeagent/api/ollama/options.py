"""Ollama's `options`: sampling and length."""

from __future__ import annotations

from typing import Annotated, ClassVar

import msgspec
from pydantic import BeforeValidator, Field

from edgeagent.api.http.field_support import IgnoredField
from edgeagent.api.http.lenient_body import LooseModel, within
from edgeagent.api.openai.schemas.shared_request_fields import StopText
from edgeagent.types.sampling import Sampling

MAX_STOPS = 16
# Ollama applies a penalty to the whole context for -1; ours looks back this far at most.
MAX_LAST_N = 4096
UNBOUNDED = 1 << 40  # tokens: more than any context has

# Some clients send every JSON number as a float.
Int = Annotated[
    int, BeforeValidator(lambda v: int(v) if isinstance(v, float) and v.is_integer() else v)
]


class OllamaOptions(LooseModel):
    """Options for sampling. Options for loading a model are left to this server."""

    field_kind: ClassVar[str] = "option"

    temperature: Annotated[float | None, within(0, 2)] = None
    top_k: Annotated[Int | None, within(0, 1_000_000)] = None
    top_p: Annotated[float | None, within(0, 1)] = None
    min_p: Annotated[float | None, within(0, 1)] = None
    typical_p: Annotated[float | None, within(1e-6, 1)] = None
    repeat_penalty: Annotated[float | None, within(1e-6, 10)] = None
    repeat_last_n: Annotated[Int | None, within(-1, MAX_LAST_N)] = None
    presence_penalty: Annotated[float | None, within(-2, 2)] = None
    frequency_penalty: Annotated[float | None, within(-2, 2)] = None
    seed: Int | None = Field(None, ge=-(1 << 63), lt=1 << 63)
    stop: StopText | Annotated[list[StopText], Field(max_length=MAX_STOPS)] | None = None
    num_predict: Annotated[Int | None, within(-2, UNBOUNDED)] = Field(
        None,
        description="longest answer in tokens, reduced to the room in the context; below 1: as "
        "many as fit",
    )
    num_ctx: Annotated[
        Int | None, IgnoredField("the length of the context is the setting `n_ctx`")
    ] = None
    num_keep: Annotated[
        Int | None, IgnoredField("a prompt that is too long is refused, not cut")
    ] = None
    num_batch: Annotated[Int | None, IgnoredField()] = None
    num_gpu: Annotated[Int | None, IgnoredField()] = None
    main_gpu: Annotated[Int | None, IgnoredField()] = None
    num_thread: Annotated[
        Int | None, IgnoredField("the number of threads follows the free cores")
    ] = None
    num_gqa: Annotated[Int | None, IgnoredField()] = None
    numa: Annotated[bool | None, IgnoredField()] = None
    low_vram: Annotated[bool | None, IgnoredField()] = None
    f16_kv: Annotated[bool | None, IgnoredField()] = None
    logits_all: Annotated[bool | None, IgnoredField()] = None
    vocab_only: Annotated[bool | None, IgnoredField()] = None
    use_mmap: Annotated[bool | None, IgnoredField()] = None
    use_mlock: Annotated[bool | None, IgnoredField()] = None
    embedding_only: Annotated[bool | None, IgnoredField()] = None
    mirostat_tau: Annotated[float | None, IgnoredField("without `mirostat`")] = None
    mirostat_eta: Annotated[float | None, IgnoredField("without `mirostat`")] = None
    penalize_newline: Annotated[bool | None, IgnoredField()] = None
    mirostat: Annotated[Int | None, IgnoredField("replaced by `top_p`, `min_p` and others")] = None
    tfs_z: Annotated[float | None, IgnoredField("as `mirostat`")] = None

    def sampling(self, defaults: Sampling) -> Sampling:
        """The values of the request over the defaults of the model."""
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
        return UNBOUNDED if self.is_unbounded else self.num_predict

    @property
    def is_unbounded(self) -> bool:
        """Whether the answer may fill the context, as Ollama reads 0, -1 and -2."""
        return self.num_predict is not None and self.num_predict < 1

    def stops(self) -> list[str]:
        return [self.stop] if isinstance(self.stop, str) else self.stop or []
