"""`[engine]`: context, batching and limits of the worker of one model."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from edgeagent.settings.settings_table import SettingsTable


class EngineSettings(SettingsTable):
    n_ctx: int = Field(
        default=4096, ge=256, le=1 << 20, description="KV cells of a model, shared by all its slots"
    )
    n_seq: int = Field(default=8, ge=1, le=64, description="sequences decoded in one batch")
    n_prefixes: int = Field(
        default=24, ge=0, le=128, description="idle prefixes kept in the KV cache"
    )
    n_batch: int = Field(default=512, ge=32, le=4096, description="limit of tokens in one step")
    n_threads: int | None = Field(
        default=None, ge=1, le=256, description="threads of one worker; default: usable cores"
    )
    kv_type: Literal["f16", "q8_0", "q4_0"] = Field(
        default="f16", description="number type of the KV cache"
    )
    flash_attention: Literal["auto", "on", "off"] = Field(
        default="auto", description="flash attention"
    )
    reproducible: bool = Field(
        default=False,
        description="give the same text whatever else runs in the batch; about a tenth slower",
    )
    speculation: Literal["auto", "off"] = Field(
        default="auto",
        description="compute tokens ahead that are copied from the prompt, where that is faster",
    )
    cells_on_demand: bool = Field(
        default=True,
        description="take memory for KV cells once they are used, make contexts for several clients after "
        "the first request, and give their memory back while nothing runs; false: all of it at load",
    )
    prompt_cells: int = Field(
        default=2048,
        ge=0,
        le=1 << 20,
        description="KV cells, at most a quarter of n_ctx and 64 MiB, in which prompts are computed apart "
        "from running answers, which is faster; longer prompts, and 0: together with them. Twice as many "
        "with prompts_beside",
    )
    prompts_beside: bool = Field(
        default=True,
        description="with 2 or 3 threads, compute prompts on threads and in cells of their own while answers "
        "go on, each with `prompt_cells`; false: in turn with all threads",
    )
    answer_cells: int = Field(
        default=1024,
        ge=0,
        le=1 << 20,
        description="KV cells of each running answer, in which it is computed apart from others, which is "
        "faster; n_ctx / n_seq at most, and 192 MiB in all. Longer answers, and 0: together with them",
    )
    int8_encoders: Literal["auto", "on", "off"] = Field(
        default="auto",
        description="compute models of the BERT kind that embed or rank with 8-bit integers where "
        "CTranslate2 is installed: about four times as fast, cosine to their own vectors 0.998; auto: on "
        "processors with instructions for it (AVX-512 VNNI, AVX-VNNI, dotprod)",
    )
    step_budget_ms: float = Field(
        default=150.0,
        ge=5,
        le=10_000,
        description="longest time that a chunk of a prompt, or drafts, may delay running answers; chunks "
        "twice as long where their tokens take much less time then",
    )
    stream_interval_ms: float = Field(
        default=5.0,
        ge=0,
        le=1000,
        description="about the least time between two chunks of a stream, longer under load; 0: every token",
    )
    smooth_streams: bool = Field(
        default=True,
        description="pass tokens of a stream that came at once, copied ones and those of a schema, on one "
        "after another while the next ones are computed; not while other programs use cores",
    )
    default_max_tokens: int = Field(
        default=1024, ge=1, le=1 << 20, description="max_tokens of a request that gives none"
    )
    queue_limit: int = Field(
        default=64, ge=0, le=10_000, description="limit of requests that wait for a model"
    )
    queue_timeout_s: float = Field(
        default=60.0, gt=0, le=3600, description="longest time a request may wait in the queue"
    )
    template_timeout_s: float = Field(
        default=2.0, gt=0, le=60, description="time limit for rendering a chat template"
    )
    grammar_timeout_s: float = Field(
        default=2.0, gt=0, le=60, description="time limit for compiling a schema or grammar"
    )
