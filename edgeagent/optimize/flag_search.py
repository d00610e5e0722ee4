"""The engine flags that a model runs fastest with on this device, measured one flag after another.

What counts is the time of a request: a prompt of `PREFILL_TOKENS` and `DECODE_TOKENS` after it. A choice is
timed in a process of its own, beside the best so far, and replaces it where it is faster by more than noise.
A coarser KV cache changes predictions, so it is tried only within a bound on the divergence that it makes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec

from edgeagent.optimize.client import scoring_worker
from edgeagent.optimize.evaluate import (
    EvaluationOptions,
    Tell,
    compared,
    model_file,
    reference_of,
    time_model,
)
from edgeagent.optimize.quietness import is_quiet
from edgeagent.types.engine_flags import EngineFlags

# A choice must be faster by this share: less is noise.
LEAST_GAIN = 0.03
N_RUNS = 2


@dataclass(frozen=True)
class Trial:
    """One choice: seconds of a request, the best of its runs, and cores that others used meanwhile.
    `kld`: the divergence from the f16 cache, if that was measured; `is_kept`: it replaced the best so far."""

    flags: EngineFlags
    seconds: float
    others_cores: float
    is_kept: bool
    kld: float | None = None


def choices(n_cores: int) -> list[tuple[str, list[Any]]]:
    """The values that each flag is tried with, in the order in which flags are searched."""
    threads = sorted({1, 2, max(1, n_cores // 2), n_cores, *(4 for _ in [0] if n_cores > 4)})
    return [
        ("n_threads", [n for n in threads if n <= n_cores]),
        ("repack", [True, False]),
        ("flash_attention", ["auto", "off", "on"]),
        ("n_batch", [512, 128, 256, 1024]),
        ("kv_type", ["f16", "q8_0", "q4_0"]),
    ]


def better(trial_s: float, best_s: float) -> bool:
    """Whether a choice replaces the best so far."""
    return trial_s < best_s * (1 - LEAST_GAIN)


async def fastest_flags(
    model: Path,
    n_cores: int,
    *,
    texts: Sequence[Path] = (),
    max_kld: float = 0.01,
    n_ctx: int = 512,
    max_chunks: int = 4,
    tell: Tell = lambda what, n, total: None,
) -> list[Trial]:
    """Every trial in order; the last kept one has the flags. Without `texts` the KV type stays.

    Raises: InvalidParameter for texts that cannot be read; ModelUnusable.
    """
    flags = EngineFlags(n_threads=n_cores)
    plan = choices(n_cores)
    total = 1 + sum(len(values) - 1 for name, values in plan if name != "kv_type" or texts)
    best = await _timed(model, flags)
    trials = [replace(best, is_kept=True)]
    tell("flags", 1, total)
    for name, values in plan:
        if name == "kv_type" and not texts:
            continue
        for value in values:
            if value == getattr(flags, name):
                continue
            tried = msgspec.structs.replace(flags, **{name: value})
            kld = None
            if name == "kv_type":
                kld = await _divergence(model, flags, tried, texts, n_ctx, max_chunks)
            trial = replace(await _timed(model, tried), kld=kld)
            is_kept = better(trial.seconds, best.seconds) and (kld is None or kld <= max_kld)
            trials.append(replace(trial, is_kept=is_kept))
            tell("flags", 1, total)
            if is_kept:
                best = trial
        flags = best.flags
    return trials


async def _timed(model: Path, flags: EngineFlags) -> Trial:
    runs = [await time_model(model, _options(flags)) for _ in range(N_RUNS)]
    quiet = [run for run in runs if is_quiet(run.others_cores)] or runs
    best = min(quiet, key=lambda run: run.request_s or 0.0)
    return Trial(flags, best.request_s or 0.0, best.others_cores or 0.0, False)


async def _divergence(
    model: Path, flags: EngineFlags, tried: EngineFlags, texts: Sequence[Path], n_ctx: int, max_chunks: int
) -> float:  # fmt: skip
    """Of the cache of `tried` from that of `flags`."""
    reference = replace(_options(flags), texts=tuple(texts), n_ctx=n_ctx, max_chunks=max_chunks)
    async with scoring_worker(reference.config(model, is_scoring=True)) as client:
        known = await reference_of(client, await reference.chunks_of(client))
    options = replace(reference, kv_type=tried.kv_type)
    async with scoring_worker(options.config(model, is_scoring=True)) as client:
        found = await compared(client, model_file(model), known)
    assert found.divergence is not None
    return found.divergence.mean


def _options(flags: EngineFlags) -> EvaluationOptions:
    return EvaluationOptions(
        n_threads=flags.n_threads, n_batch=flags.n_batch, kv_type=flags.kv_type,
        flash_attention=flags.flash_attention, repack=flags.repack,
    )  # fmt: skip
